"""When an object counts as lost, and when as found again: decided over a few frames, so that flicker makes no events.

Each frame says "seen", "not seen", or nothing (between the thresholds, which are the hysteresis). Frames that say
nothing neither count nor break a run of those that do. `FRAMES_TO_DECIDE` in a row that contradict what holds so far
make an event, on the last of them. An object starts as seen: it was prompted.
"""

from __future__ import annotations

from dataclasses import dataclass

from masklet_server.session.replies import ObjectEvent

# A logit of 1 is a probability of 0.73. Not above 0 SAM 2 shows no mask at all, which is "not seen" in any case.
SEEN_OBJECT_SCORE = 1.0
NOT_SEEN_OBJECT_SCORE = 0.0
# SAM 2's own estimate of a mask's quality. Below 0.4 a mask shows the object nowhere: what a model draws that saw few
# absent objects in its training, and so keeps a high object score while the object is hidden. At 0.5 and above most of
# it is right. Of nano's frames of eight DAVIS sequences, 15 of 476 with a J above 0.5 lie below 0.4; none has one below
# 0.1, of which weights before these had 21, 17 of them below 0.4.
SEEN_IOU = 0.5
NOT_SEEN_IOU = 0.4
# A tenth of a second at 30 frames a second. A wrong decision of the model on one frame or two is common.
FRAMES_TO_DECIDE = 3
# A mask this near the edge, in parts of the side, touches it: models draw in cells of 1/96 to 1/256 of the side.
EDGE = 0.01


@dataclass(frozen=True)
class Sighting:
    """What one frame says of an object.

    Attributes:
        object_score: Logit.
        predicted_iou: 0 to 1.
        box: x0, y0 inclusive, x1, y1 exclusive; None where the mask is empty.
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
        """None: hard to say."""
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
    """One object's, from frame to frame.

    Attributes:
        is_visible: What is held now.
    """

    def __init__(self) -> None:
        self.is_visible = True
        self._last_seen: Sighting | None = None
        self._against = 0

    def update(self, sighting: Sighting) -> ObjectEvent | None:
        """Take the next frame into account; the event that it completes, if any."""
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
