"""From the names that programs give to sam2 (repositories, configurations, checkpoints) to the names of models here."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
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
# facebook/sam2.1-hiera-large, configs/sam2.1/sam2.1_hiera_l.yaml, sam2.1_hiera_large.pt; and sam2.1_hiera_t_512.yaml,
# as forks call a configuration of another size.
_OFFICIAL = re.compile(r"sam2(\.1)?[-_]hiera[-_](t|s|b\+|l|tiny|small|base[-_]plus|large)(?:_(\d+))?")
# What sam2's programs give in `hydra_overrides_extra`.
_SIZE_OVERRIDE = re.compile(r"\+{0,2}model\.image_size=(\d+)")
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

    def at(self, size: int | None) -> ModelChoice:
        """The same model at another size of its input; itself for None."""
        if size is None:
            return self
        named, equals, files = self.embedded.partition("=")
        return ModelChoice(_at(self.name, size), f"{_at(named, size)}{equals}{files}")


def size_in_overrides(overrides: Sequence[str]) -> tuple[int | None, list[str]]:
    """The size in ``++model.image_size=SIZE``, the last one counts; and all other overrides.

    Args:
        overrides: What a program gives to `build_sam2` as `hydra_overrides_extra`.
    """
    matches = [_SIZE_OVERRIDE.fullmatch(override) for override in overrides]
    sizes = [int(match[1]) for match in matches if match]
    return (sizes[-1] if sizes else None), [o for o, match in zip(overrides, matches, strict=True) if not match]


def of_repository(model_id: str) -> ModelChoice:
    """The model of a repository on Hugging Face.

    Args:
        model_id: OWNER/REPOSITORY, such as "facebook/sam2.1-hiera-large"; or the name of a model here. ``@SIZE`` after
            either chooses a size.
    """
    plain, at, size = model_id.partition("@")
    owner, slash, repository = plain.partition("/")
    official = _official(repository if slash else owner)
    if official is not None and owner in ("facebook", plain):
        name = official + at + size
    else:
        name = f"hub:{model_id}" if slash else model_id
    return ModelChoice(name, name)


def of_files(config_file: str | os.PathLike[str], ckpt_path: str | os.PathLike[str] | None) -> ModelChoice:
    """The model of a configuration and a checkpoint, as `build_sam2` takes them.

    A checkpoint that lies on this machine is loaded by a server inside this process. Any other server must have the
    model already: official ones under their name here, others under the name of the checkpoint's file.

    Args:
        config_file: Such as "configs/sam2.1/sam2.1_hiera_l.yaml"; or the name of a model here, which may have a size.
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
    plain, at, size = (configured or "").partition("@")
    if official and configured and official != plain:
        raise ValueError(f"ckpt_path: {checkpoint} is {official}, but config_file {config} is {configured}")
    own_name = re.sub(r"[^A-Za-z0-9._-]", "-", checkpoint.stem).lstrip("._-") or "checkpoint"
    name = (official or own_name) + at + size
    if checkpoint.is_file():
        return ModelChoice(name, f"{own_name}{at}{size}={checkpoint.absolute()}:{plain or config}")
    return ModelChoice(name, name)


def _at(name: str, size: int) -> str:
    return f"{name.partition('@')[0]}@{size}"


def _official(name: str) -> str | None:
    """The name here of one of Meta's models; None if it is none of them."""
    for suffix in (*_CONFIG_SUFFIXES, *_CHECKPOINT_SUFFIXES):
        name = name.removesuffix(suffix)
    match = _OFFICIAL.fullmatch(name)
    if match is None:
        return None
    return f"sam{'2.1' if match[1] else '2.0'}-{_SIZES[match[2]]}" + (f"@{match[3]}" if match[3] else "")
