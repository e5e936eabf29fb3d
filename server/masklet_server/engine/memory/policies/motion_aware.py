"""A memory policy that prefers masks which fit the object's motion.

In the spirit of SAMURAI (Yang et al., https://arxiv.org/abs/2411.11922). A Kalman filter predicts the object's box;
candidates near it are preferred, and only frames with good scores are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from masklet_server.engine.memory.policies.motion import Motion, overlap
from masklet_server.engine.memory.policies.policy import (
    Candidates,
    Mask,
    MemoryPolicy,
    Policy,
    Role,
    mask_box,
)


@dataclass(frozen=True, eq=False)
class Course:
    """An object's motion up to a frame.

    Attributes:
        motion: State of the Kalman filter after the frame.
        frames: On how many frames in a row the object was found.
    """

    motion: Motion
    frames: int


class MotionAware(Policy[Course]):
    """Select frames that fit the object's motion; a note is its course up to a frame, missing where it was lost."""

    kind = MemoryPolicy.MOTION_AWARE

    # The paper's, and its authors' defaults.
    MOTION_WEIGHT: ClassVar = 0.15
    # The filter counts after so many frames in a row, all with a predicted IoU above this.
    STABLE_FRAMES: ClassVar = 15
    STABLE_IOU: ClassVar = 0.3
    # A frame must exceed all three to be remembered.
    MEMORY_IOU: ClassVar = 0.5
    MEMORY_OBJECT_SCORE: ClassVar = 0.0
    MEMORY_MOTION: ClassVar = 0.0

    def _decide(self, frame_index: int, candidates: Candidates) -> tuple[int, Role | None]:
        boxes = [mask_box(mask) for mask in candidates.masks]
        before = self.notes.get(frame_index - 1)
        expected = None if before is None else before.motion.predicted()
        scores, overlaps = candidates.predicted_ious, None
        if before is not None and expected is not None and before.frames >= self.STABLE_FRAMES:
            overlaps = np.array([overlap(expected.box, box) for box in boxes])
            scores = self.MOTION_WEIGHT * overlaps + (1 - self.MOTION_WEIGHT) * candidates.predicted_ious
        chosen = int(scores.argmax())
        box, iou = boxes[chosen], candidates.predicted_ious[chosen]
        present = candidates.object_score > self.MEMORY_OBJECT_SCORE and box is not None
        if present and box is not None and iou > self.STABLE_IOU:
            motion = Motion.start(box) if expected is None else expected.updated(box)
            self.notes[frame_index] = Course(motion, 1 if before is None else before.frames + 1)
        fits = overlaps is None or overlaps[chosen] > self.MEMORY_MOTION
        # The last frame is always attended to: no other frame shows the present.
        return chosen, "recent" if present and iou > self.MEMORY_IOU and fits else "last"

    def _select(self, frame_index: int) -> list[tuple[int, int]]:
        good = [
            index for index in sorted(self.selected) if index < frame_index and self.selected[index].role == "recent"
        ]
        last = frame_index - 1
        if last in self.selected and last not in good:
            good.append(last)
        chosen = good[-self.most :] if self.most else []
        return list(zip(range(len(chosen), 0, -1), chosen, strict=True))

    def _note_mask(self, frame_index: int, mask: Mask) -> None:
        # A prompt tells where the object is, but not how it moves: its motion starts again.
        self.notes.pop(frame_index, None)
        if (box := mask_box(mask)) is not None:
            self.notes[frame_index] = Course(Motion.start(box), 1)

    def _forget_notes(self, first: int) -> None:
        self.notes = {i: course for i, course in self.notes.items() if i >= first - 1}

    @staticmethod
    def _note_to_json(note: Course) -> Any:
        return {**note.motion.to_json(), "frames": note.frames}

    @staticmethod
    def _note_from_json(value: Any) -> Course:
        return Course(Motion.from_json(value), value["frames"])
