"""How fast samples are made, and what they look like.

python -m training.samples --cache CACHE [--size 384] [--frames 8] [--workers 2] [--sheet FILE]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from training.cli import run
from training.data.cache import Cache, Pixels
from training.samples.dataset import DEFAULT_MIX, ClipDataset, ClipRecipe, batches
from training.samples.scenes import SceneKind


def sheet(dataset: ClipDataset, rows: int) -> Pixels:
    """A picture of clips: one a row, the objects tinted."""
    lines = []
    for index in range(rows):
        frames, masks = dataset.clip(index)
        tinted, mask = frames.copy(), masks.any(axis=0)
        tinted[mask] = tinted[mask] // 2 + np.array([0, 127, 0], np.uint8)
        lines.append(np.concatenate(list(tinted), axis=1))
    return np.concatenate(lines, axis=0)


def measure(dataset: ClipDataset, *, batch: int, workers: int) -> float:
    """Clips a second, once the workers have started."""
    loader = iter(batches(dataset, batch, workers=workers))
    next(loader)
    start = time.perf_counter()
    count = sum(len(frames) for frames, _ in loader)
    return count / (time.perf_counter() - start)


def main(
    cache: Annotated[Path, typer.Option(help="What training.prepare wrote.")],
    size: Annotated[int, typer.Option(help="Side of the frames in pixels.")] = 384,
    frames: Annotated[int, typer.Option(help="Frames of a clip.")] = 8,
    kind: Annotated[SceneKind | None, typer.Option(help="Only this kind of scene.")] = None,
    clips: Annotated[int, typer.Option(help="How many to make.")] = 128,
    batch: Annotated[int, typer.Option(help="Clips that are made at a time.")] = 8,
    workers: Annotated[int, typer.Option(help="Processes; 0 for this one alone.")] = 0,
    sheet_file: Annotated[Path | None, typer.Option("--sheet", metavar="FILE", help="Draw eight of them.")] = None,
) -> None:
    """Print clips a second."""
    recipe = ClipRecipe(size=size, frames=frames, mix=DEFAULT_MIX if kind is None else {kind: 1.0})
    dataset = ClipDataset(Cache.open(cache), recipe, (0,), clips)
    if sheet_file is not None:
        cv2.imwrite(str(sheet_file), cv2.cvtColor(sheet(dataset, 8), cv2.COLOR_RGB2BGR))
    cv2.setNumThreads(1)
    rate = measure(dataset, batch=batch, workers=workers)
    print(f"{rate:.1f} clips/s, {rate * frames:.0f} frames/s ({size} px, {frames} frames, {workers} workers)")


if __name__ == "__main__":
    run(main)
