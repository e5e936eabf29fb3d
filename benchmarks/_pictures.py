"""Single pictures with known objects: the IoU of the mask that one click, or one box, gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import masklet
from benchmarks._davis import BoolArray, DavisError, LabelArray, interior_point, jaccard

LEAST_AREA = 0.003  # of the picture


@dataclass(frozen=True)
class Picture:
    """One picture and its objects.

    Attributes:
        file: Of the picture.
        masks: Of its label map: 0 for nothing, else an object's number.
    """

    file: Path
    masks: Path

    def objects(self) -> Iterator[BoolArray]:
        """``bool[H, W]`` of each object that is not too small."""
        with Image.open(self.masks) as image:
            labels: LabelArray = np.asarray(image, np.uint8)
        for number in np.unique(labels[labels > 0]):
            mask = labels == number
            if mask.mean() >= LEAST_AREA:
                yield mask


@dataclass(frozen=True)
class PictureScore:
    """IoU of one object's masks.

    Attributes:
        name: Of the picture.
        click: From one click at its most interior point: of the mask that the model itself holds to be the best.
        best: The best of the three masks that this click gives.
        box: From its exact box.
    """

    name: str
    click: float
    best: float
    box: float


def load_pictures(root: Path, names: list[str] | None = None) -> list[Picture]:
    """Pictures under ``images/*.jpg`` with label maps of the same names under ``masks/*.png``.

    Args:
        root: The folder that holds both.
        names: Which ones; all of them if None.

    Raises:
        DavisError: There are none, or one of those asked for is missing.
    """
    found = {path.stem: path for path in sorted((root / "images").glob("*.jpg"))}
    chosen = sorted(found) if names is None else names
    if not chosen:
        raise DavisError(f"there are no pictures *.jpg in {root / 'images'}")
    pictures = []
    for name in chosen:
        masks = root / "masks" / f"{name}.png"
        if name not in found or not masks.is_file():
            raise DavisError(f"{root} must hold images/{name}.jpg and masks/{name}.png")
        pictures.append(Picture(found[name], masks))
    return pictures


def listed(file: Path, root: Path) -> list[str]:
    """The names that a list has of a set: its lines ``SET/NAME``, of which SET is the name of the set's folder.

    Raises:
        DavisError: It has none.
    """
    lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
    names = [name for folder, _, name in (line.partition("/") for line in lines) if folder == root.name and name]
    if not names:
        raise DavisError(f"{file} lists nothing of {root.name}")
    return names


def score_picture(client: masklet.Client, picture: Picture) -> Iterator[PictureScore]:
    """Segment each object of a picture from one click and from its box.

    Raises:
        MaskletError: The server reports a fault.
    """
    seen: Path | masklet.Segmentation = picture.file
    for mask in picture.objects():
        clicked = client.segment(seen, point_coords=[interior_point(mask)])
        boxed = client.segment(clicked, box=box_of(mask), multimask_output=False)
        seen = boxed
        ious = [jaccard(mask, candidate) for candidate in clicked.masks]
        yield PictureScore(picture.file.stem, ious[0], max(ious), jaccard(mask, boxed.masks[0]))


def box_of(mask: BoolArray) -> tuple[float, float, float, float]:
    """X0, y0, x1, y1 of the edges of a mask, which is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
