"""What the commands of training have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from masklet.errors import MaskletError
from training.errors import TrainingError


def run(main: Callable[..., None]) -> None:
    """Run a command; what the person can put right is said in one line."""
    try:
        typer.run(main)
    except (TrainingError, MaskletError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
