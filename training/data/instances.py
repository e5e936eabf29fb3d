"""Pictures with instance masks on disk, and the objects in them.

Layout: ``DIR/SET/images/ID.jpg`` and ``DIR/SET/masks/ID.png``, 8-bit labels, 0 for nothing. If there is a
``DIR/SET/masks2/ID.png``, it divides the same picture into objects in another way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from training.data.cache import Pixels
from training.errors import TrainingError

WHOLE = 255  # the label of what all labels of a picture make up together

_LEAST_AREA, _MOST_AREA = 0.003, 0.7  # of the picture
_LEAST_PIXELS = 900  # of a cut-out
_LEAST_FILL = 0.2  # of its box
_MARGIN = 0.04  # about a cut-out, so that warping finds colours beyond its edge


@dataclass(frozen=True)
class Instances:
    """A picture and its labels.

    Attributes:
        source: Its file.
        picture: ``uint8[H, W, 3]``, RGB.
        labels: ``uint8[H, W]``.
        parts: The labels are parts of one thing.
        others: ``uint8[H, W]``: another way to divide the picture into objects, or None.
    """

    source: Path
    picture: Pixels
    labels: Pixels
    parts: bool
    others: Pixels | None = None

    def whole(self) -> Pixels:
        """Labels with all parts made one."""
        return np.where(self.labels > 0, WHOLE, 0).astype(np.uint8)


def objects_of(labels: Pixels) -> tuple[int, ...]:
    """Labels neither too small nor too large to follow."""
    areas = np.bincount(labels.ravel(), minlength=256) / labels.size
    areas[0] = 0
    return tuple(int(label) for label in np.flatnonzero((areas > _LEAST_AREA) & (areas < _MOST_AREA)))


def read_sets(
    root: Path, *, side: int, sets_of_parts: frozenset[str], held_out: frozenset[str] = frozenset()
) -> Iterator[Instances]:
    """All pictures under a folder but those held out (``SET/ID``), at most `side` pixels wide and high.

    Raises:
        TrainingError: There are none, or a mask does not fit its picture.
    """
    folders = sorted(folder for folder in root.iterdir() if (folder / "masks").is_dir()) if root.is_dir() else []
    if not folders:
        raise TrainingError(f"{root} has no SET/images and SET/masks")
    if unknown := sets_of_parts - {folder.name for folder in folders}:
        raise TrainingError(f"{root} has no sets called {', '.join(sorted(unknown))}")
    for folder in folders:
        for source in sorted((folder / "images").iterdir()):
            masks = folder / "masks" / f"{source.stem}.png"
            if masks.is_file() and f"{folder.name}/{source.stem}" not in held_out:
                yield _read(source, masks, side, parts=folder.name in sets_of_parts)


def _read(source: Path, masks: Path, side: int, *, parts: bool) -> Instances:
    with Image.open(source) as image:
        picture = np.asarray(image.convert("RGB"))
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (round(width * scale), round(height * scale))
    others = masks.parent.with_name("masks2") / masks.name
    return Instances(
        source,
        np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8),
        _labels(masks, source, picture, size),
        parts,
        _labels(others, source, picture, size) if others.is_file() else None,
    )


def _labels(masks: Path, source: Path, picture: Pixels, size: tuple[int, int]) -> Pixels:
    with Image.open(masks) as image:
        labels = np.asarray(image, np.uint8)
    if labels.shape != picture.shape[:2]:
        raise TrainingError(f"{masks} is of the shape {labels.shape}, {source} of {picture.shape[:2]}")
    return np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def cut_out(picture: Pixels, mask: npt.NDArray[np.bool_], side: int | None = None) -> Pixels | None:
    """``uint8[side, side, 4]``: the object in a square of its surroundings, and how much of a pixel it covers.

    Without `side` it keeps the size that it has in the picture. None if it is too small or too scattered to pass for an
    object.
    """
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    area = int(mask.sum())
    if area < _LEAST_PIXELS or area < _LEAST_FILL * width * height:
        return None
    square = round(max(width, height) * (1 + 2 * _MARGIN))
    x, y = left - (square - width) // 2, top - (square - height) // 2
    # Borders repeat the picture's edge; only what lies outside of the picture is made up.
    right, bottom = x + square - picture.shape[1], y + square - picture.shape[0]
    edges = (max(0, -y), max(0, bottom), max(0, -x), max(0, right))
    colour = cv2.copyMakeBorder(picture, *edges, borderType=cv2.BORDER_REPLICATE)
    cover = cv2.copyMakeBorder(mask.astype(np.uint8) * 255, *edges, borderType=cv2.BORDER_CONSTANT, value=0)
    x, y = max(0, x), max(0, y)
    patch = np.dstack([colour, cover])[y : y + square, x : x + square]
    if side is not None:
        patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(patch, np.uint8)
