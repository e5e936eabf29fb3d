"""Average two checkpoints of one model, of which the second was trained from the first.

    python -m training.blend FIRST SECOND --out FILE [--part 0.5]

What lies between the two is often better than both on data that neither saw: "Robust fine-tuning of zero-shot models",
Wortsman et al., https://arxiv.org/abs/2109.01903.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import load_file, save_file

from masklet_server.models.weights import State
from training.cli import run
from training.errors import TrainingError
from training.learning.model import halved


def blend(first: State, second: State, part: float) -> State:
    """Weights of which `part` is the second's.

    Raises:
        TrainingError: They are of different models.
    """
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise TrainingError("the two checkpoints hold weights of different names or shapes")
    return {
        name: value.float().lerp(second[name].float(), part) if value.is_floating_point() else second[name]
        for name, value in first.items()
    }


def main(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A checkpoint.", exists=True, dir_okay=False)],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Trained from it.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint to write.")],
    part: Annotated[float, typer.Option(min=0, max=1, help="Of the second.")] = 0.5,
) -> None:
    """Average two checkpoints of one model."""
    save_file(halved(blend(load_file(first), load_file(second), part)), out)


if __name__ == "__main__":
    run(main)
