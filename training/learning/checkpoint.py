"""The state of a run on disk: all of it, or the one before."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from masklet_server.models.weights import State
from training.errors import TrainingError

FILE = "state.pt"
_VERSION = 1


@dataclass(frozen=True)
class RunState:
    """Where a run is.

    What is random in a step follows from the seed, the stage and the step, so it needs no state of its own; torch's is
    kept for models with dropout.

    Attributes:
        stage: Number of the stage it is in; the number of stages once it is done.
        stage_name: Its name, or empty.
        step: Steps done in the stage.
        total: Steps done in all.
        model: Weights.
        mean: Their running mean.
        mean_updates: How many steps that has seen.
        optimiser: Its state.
        random: torch's generator.
    """

    stage: int
    stage_name: str
    step: int
    total: int
    model: State
    mean: State
    mean_updates: int
    optimiser: dict[str, Any]
    random: torch.Tensor


def save(state: RunState, folder: Path) -> None:
    """Put the state in place of the one before, in one go: a kill at any moment leaves one of the two."""
    target = folder / FILE
    temporary = target.with_suffix(".new")
    # Not asdict, which would copy every tensor.
    content = {name: getattr(state, name) for name in state.__dataclass_fields__}
    with temporary.open("wb") as file:
        torch.save({"version": _VERSION, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def load(folder: Path) -> RunState:
    """The state that was saved last, on the CPU.

    Raises:
        TrainingError: There is none, or it is of another version or damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise TrainingError(f"there is no {path}; has training been started?")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no error class of its own for a damaged file
        raise TrainingError(f"{path} cannot be read: {error}") from error
    if content.pop("version", None) != _VERSION:
        raise TrainingError(f"{path} was written by another version of training")
    return RunState(**content)
