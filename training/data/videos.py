"""Real videos with masks on disk.

Layout: ``DIR/SEQUENCE/frames/*.jpg`` and ``DIR/SEQUENCE/masks/*.png`` of the same names; above 0 is the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from training.data.cache import Pixels
from training.errors import TrainingError


@dataclass(frozen=True)
class VideoFiles:
    """One video.

    Attributes:
        name: As its folder is called.
        frames: Its pictures in order.
        masks: One for each.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]


def find_videos(root: Path, held_out: frozenset[str] = frozenset(), *, only: bool = False) -> list[VideoFiles]:
    """All videos under a folder but those held out (``NAME_OF_THE_FOLDER/SEQUENCE``), or `only` those.

    Raises:
        TrainingError: There are none, or frames and masks do not agree.
    """
    folders = sorted(folder for folder in root.iterdir() if (folder / "masks").is_dir()) if root.is_dir() else []
    if not folders:
        raise TrainingError(f"{root} has no SEQUENCE/frames and SEQUENCE/masks")
    found = []
    for folder in folders:
        frames = tuple(sorted((folder / "frames").glob("*.jpg")))
        masks = tuple(sorted((folder / "masks").glob("*.png")))
        if not frames or [path.stem for path in frames] != [path.stem for path in masks]:
            raise TrainingError(f"{folder}/masks must hold one .png for each .jpg in {folder}/frames, of the same name")
        if (f"{root.name}/{folder.name}" in held_out) == only:
            found.append(VideoFiles(folder.name, frames, masks))
    return found


def read_frames(videos: list[VideoFiles], side: int) -> Iterator[Pixels]:
    """``uint8[H, W, 3]``, RGB, of all frames of all videos, at most `side` pixels wide and high."""
    for video in videos:
        for path in video.frames:
            with Image.open(path) as image:
                yield _resized(np.asarray(image.convert("RGB")), side, cv2.INTER_AREA)


def read_masks(videos: list[VideoFiles], side: int) -> Iterator[Pixels]:
    """``uint8[H, W]``, 1 where the object is, of all frames of all videos."""
    for video in videos:
        for path in video.masks:
            with Image.open(path) as image:
                yield _resized((np.asarray(image) > 0).astype(np.uint8), side, cv2.INTER_NEAREST)


def _resized(pixels: Pixels, side: int, interpolation: int) -> Pixels:
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation), np.uint8)
