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


def result_of(object_id: int, mask: npt.NDArray[np.bool_], predicted_iou: float = 1.0) -> ObjectResult:
    """A mask as a result.

    Args:
        object_id: Whose mask.
        mask: ``bool[H, W]``; may be empty.
        predicted_iou: The score that the format has.
    """
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
    """A frame as a result."""
    return FrameResult(frame_index, frame_index / frame_rate, sequence=0, revision=0, objects=objects)
