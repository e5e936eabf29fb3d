"""Turn a run's averaged weights into a checkpoint that masklet serves.

    python -m training.export --config training/nano.yaml --out FOLDER [--install]

Prints the lines for ``registry.toml``. ``--install`` also puts checkpoint and configuration into ``checkpoints/``.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save_file

from masklet_server.models import paths
from masklet_server.models.build import build_model
from masklet_server.models.config import read_model_config
from masklet_server.models.registry import ModelSpec
from training.cli import run
from training.config import TrainConfig, read_config
from training.learning import checkpoint
from training.learning.model import halved


@dataclass(frozen=True)
class Exported:
    """A checkpoint on disk.

    Attributes:
        checkpoint: The weights in float16.
        config: The model's configuration beside it.
        image_size: Side of the square the model sees, in pixels.
        size: Of the checkpoint, in bytes.
        sha256: Its checksum.
        steps: Of training.
    """

    checkpoint: Path
    config: Path
    image_size: int
    size: int
    sha256: str
    steps: int

    def registry_lines(self) -> str:
        """What ``registry.toml`` says of it."""
        return f'image_size = {self.image_size}\nbytes = {self.size}\nsha256 = "{self.sha256}"'


def export(config: TrainConfig, out: Path, *, raw: bool = False) -> Exported:
    """Write checkpoint and configuration, and make sure that masklet loads them.

    Args:
        config: Of the run.
        out: Folder to write to.
        raw: The weights of the last step instead of their running mean.

    Raises:
        TrainingError: The run has no checkpoint.
        MaskletError: What was written is no model.
    """
    saved = checkpoint.load(config.out)
    source = paths.config_file(config.model)
    out.mkdir(parents=True, exist_ok=True)
    weights = out / f"{source.stem}.safetensors"
    save_file(halved(saved.model if raw else {**saved.model, **saved.mean}), weights)
    beside = out / source.name
    if not (beside.exists() and beside.samefile(source)):
        shutil.copyfile(source, beside)
    data = weights.read_bytes()
    exported = Exported(
        checkpoint=weights,
        config=beside,
        image_size=int(read_model_config(beside)["image_size"]),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        steps=saved.total,
    )
    build_model(ModelSpec("exported", str(beside.absolute()), str(weights.absolute())))
    return exported


def install(exported: Exported) -> tuple[Path, Path]:
    """Copy checkpoint and configuration to where masklet's own lie; returns where."""
    folder = paths.checkpoints_folder()
    targets = folder / exported.checkpoint.name, folder / exported.config.name
    for source, target in zip((exported.checkpoint, exported.config), targets, strict=True):
        if not (target.exists() and target.samefile(source)):
            shutil.copyfile(source, target)
    return targets


def main(
    config: Annotated[Path, typer.Option(metavar="FILE", help="The recipe of the run.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; 'export' in the run's if not given.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The last step's weights instead of their running mean.")] = False,
    install_files: Annotated[bool, typer.Option("--install", help="Put them into checkpoints/ as well.")] = False,
) -> None:
    """Write a checkpoint that masklet serves."""
    recipe = read_config(config)
    exported = export(recipe, out or recipe.out / "export", raw=raw)
    print(f"{exported.checkpoint}: {exported.steps} steps, {exported.size / 1e6:.1f} MB\n{exported.registry_lines()}")
    if install_files:
        print("installed: " + ", ".join(str(path) for path in install(exported)))


if __name__ == "__main__":
    run(main)
