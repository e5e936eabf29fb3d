"""Which frames are most worth a look, and why.

A frame is doubtful where the model itself doubts (a low predicted IoU), where the object's area or place changes much
more than it did just before, and where the object is lost or found. Frames with a prompt were looked at. Of several
doubtful frames in a row, the worst one stands for all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from masklet.rle import read_counts
from masklet_studio.project import lanes
from masklet_studio.project.mask_log import Stored
from masklet_studio.project.records import MaskRecord

LOW_IOU = 0.75
"""The predicted IoU below which a mask may be doubtful."""
BELOW_USUAL = 0.15
"""How far it is below the object's usual predicted IoU then: small models doubt everything a little."""
AREA_RATIO = 1.6
"""How many times larger or smaller a mask is than the one before, to be doubtful."""
JUMP = 0.6
"""How far the mask moves between two frames, in units of the square root of its area, to be doubtful."""
_NEAR = 5  # frames


@dataclass(frozen=True)
class Doubt:
    """A frame that is worth a look.

    Attributes:
        frame: Its number.
        object_id: The object that is doubtful there.
        why: In words.
        score: From 0 to 1; the highest come first.
    """

    frame: int
    object_id: int
    why: str
    score: float


def doubts(
    object_id: int, masks: Mapping[int, Stored], prompted: set[int], read: Callable[[Stored], MaskRecord]
) -> list[Doubt]:
    """The doubtful frames of an object, in order of the frames.

    Args:
        object_id: The object.
        masks: Its masks by frame, in ascending order.
        prompted: Frames on which it has prompts.
        read: Gives the mask itself.
    """
    found: dict[int, Doubt] = {}

    def add(frame: int, why: str, score: float) -> None:
        if frame not in prompted and (frame not in found or found[frame].score < score):
            found[frame] = Doubt(frame, object_id, why, round(min(score, 1.0), 3))

    for frame, what in lanes.events(masks):
        add(frame, "the object is lost here" if what == "lost" else "the object is found again here", 0.8)
    usual = statistics.median([stored.iou for stored in masks.values() if stored.area] or [1.0])
    low = min(LOW_IOU, usual - BELOW_USUAL)
    before: Stored | None = None
    place: tuple[float, float] | None = None
    last = -2
    for frame, stored in masks.items():
        if not stored.area:
            before = place = None
            continue
        if stored.iou < low:
            add(frame, f"the model doubts this mask (predicted IoU {stored.iou:.2f})", 1 - stored.iou)
        now = centre(read(stored))
        if before is not None and place is not None and frame == last + 1:
            ratio = max(stored.area, before.area) / min(stored.area, before.area)
            if ratio > AREA_RATIO:
                word = "larger" if stored.area > before.area else "smaller"
                add(frame, f"the mask is suddenly {ratio:.1f} times {word}", 0.3 + 0.3 * math.log2(ratio))
            jump = math.dist(now, place) / math.sqrt(before.area)
            if jump > JUMP:
                add(frame, "the mask has jumped to another place", 0.3 + 0.3 * jump)
        before, place, last = stored, now, frame
    return _worst_of_each_run(found)


def centre(record: MaskRecord) -> tuple[float, float]:
    """The middle of a mask, x and y; each run counts with the place of its middle."""
    width, height = record.size
    lengths = read_counts(record.counts, height, width)
    ends = np.cumsum(lengths)
    starts, weights = ends[:-1:2], lengths[1::2]
    middles = starts[: len(weights)] + weights / 2
    total = float(weights.sum())
    x = float((middles // height * weights).sum()) / total
    y = float((middles % height * weights).sum()) / total
    return x, y


def _worst_of_each_run(found: Mapping[int, Doubt]) -> list[Doubt]:
    kept: list[Doubt] = []
    last = -_NEAR
    for frame in sorted(found):
        if kept and frame - last <= _NEAR:
            if found[frame].score > kept[-1].score:
                kept[-1] = found[frame]
        else:
            kept.append(found[frame])
        last = frame
    return kept
