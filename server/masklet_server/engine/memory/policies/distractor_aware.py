"""A memory policy that remembers how look-alikes differ from the object.

In the spirit of DAM4SAM (Videnovic et al., CVPR 2025, https://arxiv.org/abs/2411.17576). If another candidate showed a
look-alike and the right candidate was taken, the frame stays as an anchor. Of the other frames, only those count that
show the object.
"""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from masklet_server.engine.memory.policies.motion import overlap
from masklet_server.engine.memory.policies.policy import (
    Candidates,
    Mask,
    MemoryPolicy,
    Policy,
    Role,
    mask_box,
)


class DistractorAware(Policy[int]):
    """Select frames that show look-alikes; a note is the object's area in pixels on a frame that shows it."""

    kind = MemoryPolicy.DISTRACTOR_AWARE

    # These four are the paper's. An anchor stays for long, so its mask must be confident and of the usual size.
    MAX_ANCHORS: ClassVar = 3
    ANCHOR_IOU: ClassVar = 0.8
    AREA_TOLERANCE: ClassVar = 0.2
    AREAS: ClassVar = 10
    # Least frames between anchors, because neighbours show the same. (The paper also takes only every fifth of the
    # recent memories. Measured with nano, that lost objects that hide early, with two or three memories.)
    ANCHOR_STRIDE: ClassVar = 5
    # The paper's: a candidate shows a look-alike if its box overlaps that of the chosen mask by no more than this.
    DIVERGENCE: ClassVar = 0.7

    def _decide(self, frame_index: int, candidates: Candidates) -> tuple[int, Role | None]:
        chosen = int(candidates.predicted_ious.argmax())
        area = int(np.count_nonzero(candidates.masks[chosen]))
        if candidates.object_score <= 0 or area == 0:
            return chosen, None
        usual = self._usual_area(frame_index)
        self.notes[frame_index] = area
        certain = (
            candidates.predicted_ious[chosen] > self.ANCHOR_IOU
            and abs(area / usual - 1) <= self.AREA_TOLERANCE
            and frame_index - self._last_anchor(frame_index) >= self.ANCHOR_STRIDE
        )
        if certain and _shows_a_distractor(candidates.masks, chosen, self.DIVERGENCE):
            return chosen, "anchor"
        return chosen, "recent"

    def _usual_area(self, frame_index: int) -> float:
        areas = [self.notes[index] for index in sorted(self.notes) if index < frame_index][-self.AREAS :]
        return float(np.median(areas)) if areas else float("inf")

    def _last_anchor(self, frame_index: int) -> float:
        anchors = [i for i, one in self.selected.items() if one.role == "anchor" and i < frame_index]
        return max(anchors, default=float("-inf"))

    def _select(self, frame_index: int) -> list[tuple[int, int]]:
        before = [index for index in sorted(self.selected) if index < frame_index]
        anchors = [index for index in before if self.selected[index].role == "anchor"]
        anchors = anchors[-min(self.MAX_ANCHORS, self.most // 2) :] if self.most > 1 else []
        others = [index for index in before if self.selected[index].role != "anchor"]
        recent = others[-(self.most - len(anchors)) :] if self.most > len(anchors) else []
        return [(0, index) for index in anchors] + list(zip(range(len(recent), 0, -1), recent, strict=True))

    def _note_mask(self, frame_index: int, mask: Mask) -> None:
        self.notes.pop(frame_index, None)
        if mask.any():
            self.notes[frame_index] = int(np.count_nonzero(mask))

    def _forget_notes(self, first: int) -> None:
        enough = set(sorted(index for index in self.notes if index < first)[-self.AREAS :])
        self.notes = {i: area for i, area in self.notes.items() if i >= first or i in enough}

    @staticmethod
    def _note_to_json(note: int) -> Any:
        return note

    @staticmethod
    def _note_from_json(value: Any) -> int:
        return int(value)


def _shows_a_distractor(masks: npt.NDArray[np.bool_], chosen: int, divergence: float) -> bool:
    """Whether another candidate shows a look-alike: their common box is much larger than the chosen mask's."""
    mask = masks[chosen]
    box = mask_box(mask)
    for i, other in enumerate(masks):
        elsewhere = other & ~mask
        if i == chosen or box is None or not elsewhere.any():
            continue
        if overlap(box, mask_box(mask | _largest_part(elsewhere))) <= divergence:
            return True
    return False


def _largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask that is not empty."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    largest: Mask = labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return largest
