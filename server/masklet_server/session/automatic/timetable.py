"""The presentation times of tracked frames, to find the frame nearest to a time that a prompt names."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from masklet.errors import InvalidArgument


class Timetable:
    """The times of the frames taken so far; 16 bytes for each frame.

    Attributes:
        is_complete: No frame will follow.

    Args:
        max_frames: How many frames are remembered; at least 2 are.
    """

    def __init__(self, max_frames: int) -> None:
        self.is_complete = False
        self._max_frames = max(max_frames, 2)
        self._times = array("q")
        self._indices = array("q")
        self._forgot = False

    def add(self, frame_index: int, pts_nanoseconds: int, *, forget: bool = True) -> None:
        """Add the frame taken next. With `forget`, the oldest frame is forgotten if there are too many."""
        self._times.append(pts_nanoseconds)
        self._indices.append(frame_index)
        if forget and len(self._times) > self._max_frames:
            self._forgot = True
            del self._times[0], self._indices[0]

    def nearest(self, pts_nanoseconds: int, upcoming: int | None = None) -> int | None:
        """Index of the frame nearest to a time, the earlier of two equally near.

        Args:
            pts_nanoseconds: The time.
            upcoming: The time of the frame that will be taken next, or None if it is not known.

        Returns:
            None while a frame that is not taken yet may be nearer.
        """
        if not self._times:
            return None
        last = self._times[-1]
        is_ahead = pts_nanoseconds > last and not self.is_complete
        if is_ahead and (upcoming is None or abs(upcoming - pts_nanoseconds) < pts_nanoseconds - last):
            return None
        times = np.frombuffer(self._times, np.int64)
        time = np.int64(min(max(pts_nanoseconds, int(times.min())), int(times.max())))
        # A difference that overflows as a signed number is right as an unsigned one.
        distances = np.where(times > time, times - time, time - times).view(np.uint64)
        return self._indices[int(distances.argmin())]  # the first of the smallest ones

    def check(self, pts_nanoseconds: int) -> None:
        """Make sure that no forgotten frame can be the nearest to a time.

        Raises:
            InvalidArgument: One can; the field is named as in the request.
        """
        if self._forgot and pts_nanoseconds < min(self._times):
            oldest, frame_index = self._times[0], self._indices[0]
            raise InvalidArgument.of(
                "prompt.pts_seconds",
                f"is {pts_nanoseconds / 1e9:g}, which lies before the frames that can still be corrected; the oldest "
                f"is frame {frame_index} at {oldest / 1e9:g} s",
            )

    def last(self, count: int) -> list[tuple[int, int]]:
        """Index and time of the last frames, at most so many."""
        return list(zip(self._indices[-count:], self._times[-count:], strict=True))

    def restore(self, frames: Sequence[tuple[int, int]]) -> None:
        """Go on with the last frames of a session that was restored; those before are forgotten."""
        self._indices, self._times = array("q", [i for i, _ in frames]), array("q", [t for _, t in frames])
        self._forgot = bool(frames) and frames[0][0] > 0
