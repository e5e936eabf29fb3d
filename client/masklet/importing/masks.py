"""What the readers share: results that are made of masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from masklet import rle
from masklet._protocol.results import FrameResult, ObjectResult

CERTAIN = 10.0
"""The `object_score` of a mask that somebody drew: a logit far above 0."""
FRAME_RATE = 30.0
"""Frames per second, where the format does not know."""

_MOST_PIXELS = 1 << 28
"""Of a frame: more than any video has, and little enough to be held."""


def size_of(height: object, width: object) -> tuple[int, int]:
    """Height and width of the frames, as a file has them.

    Raises:
        ValueError: They are no size that a video can have.
    """
    sides = int(str(height)), int(str(width))
    if min(sides) < 1 or sides[0] * sides[1] > _MOST_PIXELS:
        raise ValueError(f"a size of {width}x{height} pixels is no video's")
    return sides


def ring_of(numbers: object) -> npt.NDArray[np.float64]:
    """The corners of a polygon, ``float64[N, 2]``.

    Args:
        numbers: x and y of each corner.

    Raises:
        ValueError: One of them is no finite number, or there is an odd one.
    """
    corners = np.asarray(numbers, np.float64)
    if corners.size % 2 or not np.isfinite(corners).all():
        raise ValueError("a polygon must have x and y of each corner, and finite ones")
    return corners.reshape(-1, 2)


def result_of(object_id: int, mask: npt.NDArray[np.bool_], predicted_iou: float = 1.0) -> ObjectResult:
    """A mask as a result.

    Args:
        object_id: Whose mask.
        mask: ``bool[H, W]``; may be empty.
        predicted_iou: The score that the format has.

    Raises:
        ValueError: The id is below 1.
    """
    if object_id < 1:
        raise ValueError(f"object {object_id} is below 1, the first number of an object")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    is_seen = bool(rows.size)
    box = None
    if is_seen:
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return ObjectResult(
        object_id=object_id,
        rle=rle.encode(mask),
        box=box,
        area=int(np.count_nonzero(mask)),
        predicted_iou=predicted_iou if is_seen else 0.0,
        object_score=CERTAIN if is_seen else -CERTAIN,
        visible=is_seen,
    )


def frame_of(frame_index: int, objects: Mapping[int, ObjectResult], frame_rate: float = FRAME_RATE) -> FrameResult:
    """A frame as a result.

    Raises:
        ValueError: The frame's number is below 0.
    """
    if frame_index < 0:
        raise ValueError(f"frame {frame_index} is below 0, the first frame")
    return FrameResult(frame_index, frame_index / frame_rate, sequence=0, revision=0, objects=objects)
