"""Decides when an object is lost, and when it is found again. Several frames decide, so that flicker makes no events.

Each frame says "seen", "not seen", or nothing: between the two thresholds (hysteresis) it says nothing. Such a frame
does not count, and does not interrupt a row of frames that say the same. After `FRAMES_TO_DECIDE` frames in a row that
contradict the current decision, the decision changes, and the last of these frames has the event. At first an object is
seen, because it was prompted.
"""

from __future__ import annotations

from dataclasses import dataclass

from masklet_server.session.replies import ObjectEvent
from masklet_server.session.restoring.state import VisibilityState

# A logit of 1 is a probability of 0.73. At 0 or below, SAM 2 shows no mask, which is "not seen" in any case.
SEEN_OBJECT_SCORE = 1.0
NOT_SEEN_OBJECT_SCORE = 0.0
# SAM 2's own estimate of a mask's quality. A mask below 0.4 does not show the object. A model that saw few absent
# objects in its training draws such masks: its object score stays high while the object is hidden. At 0.5 and above,
# most of the mask is right. Measured with nano on eight DAVIS sequences: of 476 frames with a J above 0.5, 15 are below
# 0.4. No frame has a J below 0.1. With the weights before these, 21 frames had one, and 17 of the 21 were below 0.4.
SEEN_IOU = 0.5
NOT_SEEN_IOU = 0.4
# A tenth of a second at 30 frames a second. A wrong decision of the model on one frame or two is common.
FRAMES_TO_DECIDE = 3
# A mask this near to the edge touches it, as a part of the picture's side: models draw in cells of 1/96 to 1/256.
EDGE = 0.01


@dataclass(frozen=True)
class Sighting:
    """What one frame says about an object.

    Attributes:
        object_score: Logit.
        predicted_iou: 0 to 1.
        box: x0, y0 inclusive, x1, y1 exclusive, in pixels; None if the mask is empty.
        height: Rows of the picture.
        width: Columns of the picture.
    """

    object_score: float
    predicted_iou: float
    box: tuple[int, int, int, int] | None
    height: int
    width: int

    @property
    def is_seen(self) -> bool | None:
        """Whether the object is seen; None if the frame does not tell."""
        if self.box is None or self.object_score <= NOT_SEEN_OBJECT_SCORE or self.predicted_iou < NOT_SEEN_IOU:
            return False
        if self.object_score >= SEEN_OBJECT_SCORE and self.predicted_iou >= SEEN_IOU:
            return True
        return None

    @property
    def touches_edge(self) -> bool:
        """Whether the mask reaches the picture's edge."""
        if self.box is None:
            return False
        x0, y0, x1, y1 = self.box
        across, down = EDGE * self.width, EDGE * self.height
        return x0 <= across or y0 <= down or x1 >= self.width - across or y1 >= self.height - down


class Visibility:
    """Decides for one object, frame after frame.

    Attributes:
        is_visible: The current decision.
    """

    def __init__(self) -> None:
        self.is_visible = True
        self._last_seen: Sighting | None = None
        self._against = 0

    def update(self, sighting: Sighting) -> ObjectEvent | None:
        """Take the next frame into account. Returns the event, if the decision changes."""
        seen = sighting.is_seen
        if seen is None:
            return None
        if seen:
            self._last_seen = sighting
        self._against = self._against + 1 if seen != self.is_visible else 0
        if self._against < FRAMES_TO_DECIDE:
            return None
        self.is_visible, self._against = seen, 0
        if seen:
            return ObjectEvent.REACQUIRED
        return ObjectEvent.OUT_OF_VIEW if self._last_seen and self._last_seen.touches_edge else ObjectEvent.LOST

    def dump(self) -> VisibilityState:
        """All that was decided so far."""
        seen = self._last_seen
        told = None if seen is None else (seen.object_score, seen.predicted_iou, seen.box, seen.height, seen.width)
        return VisibilityState(self.is_visible, self._against, told)

    @classmethod
    def restored(cls, state: VisibilityState) -> Visibility:
        """The decisions that `dump` gave."""
        visibility = cls()
        visibility.is_visible, visibility._against = state.is_visible, state.against
        visibility._last_seen = None if state.last_seen is None else Sighting(*state.last_seen)
        return visibility
