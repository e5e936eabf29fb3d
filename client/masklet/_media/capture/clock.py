"""The times of a live stream: they go on where the stream is connected again, or its own clock jumps."""

from __future__ import annotations

import time
from dataclasses import dataclass

_FRAME_SECONDS = 0.04
# A source's clock jumps if it goes back by more than reordered frames do, or ahead of the wall clock by more than this.
_MAX_BACK_SECONDS, _MAX_AHEAD_SECONDS = 1.0, 10.0


@dataclass(frozen=True)
class Stamp:
    """When a part belongs.

    Attributes:
        pts_seconds: Since the first part; None where nothing tells.
        nanoseconds: When it was read, by `time.time_ns`; each part has a later one.
        gap_seconds: Seconds without video before it, because the stream had broken off; else 0.
    """

    pts_seconds: float | None
    nanoseconds: int
    gap_seconds: float


class StreamClock:
    """Gives each part of a stream its time.

    Args:
        paced: Parts come when they are filmed, so that the wall clock measures the video, too.
    """

    def __init__(self, *, paced: bool) -> None:
        self._paced = paced
        self._came = time.monotonic()
        self._last = 0  # nanoseconds of the last part
        self._offset = 0.0  # of the present connection's times
        self._raw: float | None = None
        self._pts = 0.0
        self._broken = False

    @property
    def is_new(self) -> bool:
        """Whether nothing has come yet."""
        return self._last == 0

    @property
    def video_seconds(self) -> float:
        """The time of the last part."""
        return self._pts

    @property
    def silent_seconds(self) -> float:
        """Seconds since the last part came, or since the beginning."""
        return time.monotonic() - self._came

    def break_off(self) -> None:
        """Note that the next part comes from another connection."""
        self._broken = True
        self._raw = None

    def stamp(self, seconds: float | None, nanoseconds: int) -> Stamp:
        """The times of the next part.

        Args:
            seconds: Its time by the source's own clock; None where it has none.
            nanoseconds: When it was read, by `time.time_ns`.
        """
        self._came = time.monotonic()
        nanoseconds = max(nanoseconds, self._last + 1)
        elapsed = (nanoseconds - self._last) / 1e9 if self._last else 0.0
        gap, self._broken = elapsed if self._broken else 0.0, False
        if not self._paced:
            elapsed = _FRAME_SECONDS if self._last else 0.0
        self._last = nanoseconds
        if seconds is None:
            self._pts += elapsed
            return Stamp(self._pts if self._paced else None, nanoseconds, gap)
        if self._raw is None or self._jumps(seconds - self._raw, elapsed):
            self._offset = self._pts + elapsed - seconds
        self._raw = seconds
        self._pts = seconds + self._offset
        return Stamp(self._pts, nanoseconds, gap)

    def _jumps(self, step: float, elapsed: float) -> bool:
        return step < -_MAX_BACK_SECONDS or step > _MAX_AHEAD_SECONDS + elapsed
