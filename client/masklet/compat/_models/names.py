"""From the names that programs give to sam2 (repositories, configurations, checkpoints) to the names of models here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_SIZES = {
    "t": "tiny",
    "s": "small",
    "b+": "base-plus",
    "l": "large",
    "tiny": "tiny",
    "small": "small",
    "base_plus": "base-plus",
    "base-plus": "base-plus",
    "large": "large",
}
# facebook/sam2.1-hiera-large, configs/sam2.1/sam2.1_hiera_l.yaml, sam2.1_hiera_large.pt
_OFFICIAL = re.compile(r"sam2(\.1)?[-_]hiera[-_](t|s|b\+|l|tiny|small|base[-_]plus|large)")
_CONFIG_SUFFIXES = (".yaml", ".yml")
_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class ModelChoice:
    """A model that a program asks for.

    Attributes:
        name: Its name on a server.
        embedded: What a server inside this process is told to load: a name; or ``NAME=CHECKPOINT:CONFIG`` for a
            checkpoint that lies on this machine.
    """

    name: str
    embedded: str

    @property
    def embedded_name(self) -> str:
        """The model's name on a server inside this process."""
        return self.embedded.partition("=")[0]


def of_repository(model_id: str) -> ModelChoice:
    """The model of a repository on Hugging Face.

    Args:
        model_id: OWNER/REPOSITORY, such as "facebook/sam2.1-hiera-large"; or the name of a model here.
    """
    owner, slash, repository = model_id.partition("/")
    official = _official(repository if slash else owner)
    if official is not None and owner in ("facebook", model_id):
        name = official
    else:
        name = f"hub:{model_id}" if slash else model_id
    return ModelChoice(name, name)


def of_files(config_file: str | os.PathLike[str], ckpt_path: str | os.PathLike[str] | None) -> ModelChoice:
    """The model of a configuration and a checkpoint, as `build_sam2` takes them.

    A checkpoint that lies on this machine is loaded by a server inside this process. Any other server must have the
    model already: official ones under their name here, others under the name of the checkpoint's file.

    Args:
        config_file: Such as "configs/sam2.1/sam2.1_hiera_l.yaml"; or the name of a model here.
        ckpt_path: Such as "checkpoints/sam2.1_hiera_large.pt"; None: the official weights.

    Raises:
        ValueError: They are of different models.
    """
    config = os.fspath(config_file)
    configured = _official(Path(config).name) or (None if config.endswith(_CONFIG_SUFFIXES) else config)
    if ckpt_path is None:
        if configured is None:
            raise ValueError(f"config_file: {config} is no configuration of sam2 itself; give its checkpoint, too")
        return ModelChoice(configured, configured)
    checkpoint = Path(ckpt_path).expanduser()
    official = _official(checkpoint.name)
    if official and configured and official != configured:
        raise ValueError(f"ckpt_path: {checkpoint} is {official}, but config_file {config} is {configured}")
    own_name = re.sub(r"[^A-Za-z0-9._-]", "-", checkpoint.stem).lstrip("._-") or "checkpoint"
    name = official or own_name
    if checkpoint.is_file():
        return ModelChoice(name, f"{own_name}={checkpoint.absolute()}:{configured or config}")
    return ModelChoice(name, name)


def _official(name: str) -> str | None:
    """The name here of one of Meta's models; None if it is none of them."""
    for suffix in (*_CONFIG_SUFFIXES, *_CHECKPOINT_SUFFIXES):
        name = name.removesuffix(suffix)
    match = _OFFICIAL.fullmatch(name)
    return f"sam{'2.1' if match[1] else '2.0'}-{_SIZES[match[2]]}" if match else None
