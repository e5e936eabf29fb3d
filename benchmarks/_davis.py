"""The DAVIS benchmark: its data on disk, and its measures J and F.

The measures are those of the official evaluation (https://github.com/davisvideochallenge/davis2017-evaluation,
semi-supervised), written anew: the same definitions, void pixels (255) counting as background as they do there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.uint8]

BOUNDARY_TOLERANCE = 0.008  # of the picture's diagonal
VOID = 255


class DavisError(Exception):
    """A folder is not laid out as DAVIS is."""


@dataclass(frozen=True)
class Sequence:
    """One video and its annotation.

    Attributes:
        name: As its folders are called.
        pictures: The folder of its pictures.
        annotations: Its label maps in order, one for each picture.
    """

    name: str
    pictures: Path
    annotations: tuple[Path, ...]

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects in the first frame, which are those that are evaluated."""
        labels = read_labels(self.annotations[0])
        return tuple(int(label) for label in np.unique(labels) if label)


def load_sequences(root: Path, names: list[str] | None = None) -> list[Sequence]:
    """The sequences under ``JPEGImages/NAME/*.jpg`` and ``Annotations/NAME/*.png``, perhaps with ``480p/`` before NAME.

    A folder without these may hold ``NAME/frames/*.jpg`` and ``NAME/masks/*.png`` instead.

    Args:
        root: The folder that holds both.
        names: Which ones; all of them if None.

    Raises:
        DavisError: A folder is missing or empty, or pictures and annotations do not agree.
    """
    if not (root / "JPEGImages").is_dir() and any(root.glob("*/frames")):
        names = sorted(folder.parent.name for folder in root.glob("*/frames")) if names is None else names
        return [_sequence(name, root / name / "frames", root / name / "masks") for name in names]
    pictures, annotations = _subfolder(root, "JPEGImages"), _subfolder(root, "Annotations")
    if names is None:
        names = sorted(folder.name for folder in pictures.iterdir() if folder.is_dir())
    if not names:
        raise DavisError(f"there are no sequences in {pictures}")
    return [_sequence(name, pictures / name, annotations / name) for name in names]


def read_labels(path: Path) -> LabelArray:
    """``uint8[H, W]`` of an annotation: 0 background, then the number of the object; void is background.

    DAVIS 2016 has no numbers, but 255 for its one object: a picture with nothing else gets 1 there.
    """
    with Image.open(path) as image:
        labels = np.asarray(image if image.mode in ("P", "L") else image.convert("L"), np.uint8)
    values = np.unique(labels[labels > 0])
    return np.where(labels == VOID, 1 if values.tolist() == [VOID] else 0, labels).astype(np.uint8)


def jaccard(truth: BoolArray, mask: BoolArray) -> float:
    """J: intersection over union of two ``bool[H, W]``; 1 if both are empty."""
    union = np.count_nonzero(truth | mask)
    return float(np.count_nonzero(truth & mask) / union) if union else 1.0


def boundary_f(truth: BoolArray, mask: BoolArray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """F: harmonic mean of the boundaries' precision and recall, of two ``bool[H, W]``; 1 if there is no boundary.

    A boundary pixel is matched if the other boundary comes within the tolerance, which is a part of the diagonal
    rounded up to whole pixels (Martin et al., https://doi.org/10.1109/TPAMI.2004.1273918; Perazzi et al., CVPR 2016).
    """
    radius = int(np.ceil(tolerance * np.linalg.norm(truth.shape)))
    true_boundary, boundary = boundary_of(truth), boundary_of(mask)
    count, true_count = np.count_nonzero(boundary), np.count_nonzero(true_boundary)
    if not count or not true_count:
        return float(count == true_count)
    precision = np.count_nonzero(boundary & _dilated(true_boundary, radius)) / count
    recall = np.count_nonzero(true_boundary & _dilated(boundary, radius)) / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_of(mask: BoolArray) -> BoolArray:
    """``bool[H, W]``: pixels that differ from their neighbour to the right, below, or both."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    boundary: BoolArray = (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])
    return boundary


def interior_point(mask: BoolArray) -> tuple[float, float]:
    """X and y of the centre of the pixel that is farthest from everything outside the mask, the picture's edge too."""
    distances = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    row, column = np.unravel_index(int(distances.argmax()), distances.shape)
    return float(column) - 0.5, float(row) - 0.5  # the padding takes one off, the pixel's centre adds a half


def _subfolder(root: Path, name: str) -> Path:
    folder = root / name
    if not folder.is_dir():
        raise DavisError(f"{root} has no folder {name}; give the folder that holds JPEGImages and Annotations")
    return folder / "480p" if (folder / "480p").is_dir() else folder


def _sequence(name: str, pictures: Path, annotations: Path) -> Sequence:
    frames = sorted(path.stem for path in pictures.glob("*.jpg"))
    if not frames:
        raise DavisError(f"there are no pictures *.jpg in {pictures}")
    labelled = sorted(annotations.glob("*.png"))
    if [path.stem for path in labelled] != frames:
        raise DavisError(f"{annotations} must hold one .png for each .jpg in {pictures}, of the same name")
    if len(frames) < 3:
        raise DavisError(
            f"{pictures} has {len(frames)} pictures; at least 3 are needed, the first and last do not count"
        )
    return Sequence(name, pictures, tuple(labelled))


def _dilated(boundary: BoolArray, radius: int) -> BoolArray:
    return cv2.dilate(boundary.astype(np.uint8), disk(radius)).astype(np.bool_)


@lru_cache(maxsize=8)
def disk(radius: int) -> LabelArray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk: LabelArray = (x * x + y * y <= radius * radius).astype(np.uint8)
    return disk
