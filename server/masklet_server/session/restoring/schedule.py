"""Decides when a snapshot of a session is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from masklet_server.session.restoring.state import Captured

# A slow device goes over so much work again after a server's end; a quick one reaches the limit of frames first.
SECONDS = 3.0
# Clients keep 64 MiB of video that they cannot read again, until a snapshot has it.
INPUT_BYTES = 16 * 1024**2


class SnapshotTaker(Protocol):
    """Makes snapshots of one session; see `masklet_server.session.restoring.writer.SnapshotWriter`."""

    @property
    def is_due(self) -> bool:
        """Whether a snapshot is to be made at the next moment when nothing is under way."""

    def frame_tracked(self) -> None:
        """Count a frame that was tracked."""

    def operation_taken(self) -> None:
        """A prompt, a removal or a clearing was taken."""

    def take(self, captured: Captured) -> None:
        """Store the session as it is now. Returns at once."""


class Schedule:
    """After so many frames, so many seconds or so many bytes of video; and after each operation.

    Args:
        frames: So many frames.
        input_bytes: Gives the bytes of video that the session has taken so far.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self, frames: int, input_bytes: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_frames = frames
        self._input_bytes = input_bytes
        self._clock = clock
        self._frames = 0
        self._is_asked = False
        self._began = clock()
        self._bytes = input_bytes()
        self._not_before = 0.0

    @property
    def is_due(self) -> bool:
        """Whether there is something new that is worth a snapshot."""
        now = self._clock()
        if now < self._not_before or not (self._frames or self._is_asked):
            return False
        return (
            self._is_asked
            or self._frames >= self._most_frames
            or now - self._began >= SECONDS
            or self._input_bytes() - self._bytes >= INPUT_BYTES
        )

    def frame_tracked(self) -> None:
        """Count a frame that was tracked."""
        self._frames += 1

    def ask(self) -> None:
        """A snapshot is due, whatever else is."""
        self._is_asked = True

    def taken(self) -> None:
        """A snapshot is being made."""
        self._frames, self._is_asked = 0, False
        self._began, self._bytes = self._clock(), self._input_bytes()

    def failed(self, seconds: float) -> None:
        """The snapshot could not be stored: make the next one, after a while."""
        self._is_asked = True
        self._not_before = self._clock() + seconds
