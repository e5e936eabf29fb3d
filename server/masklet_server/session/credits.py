"""How far results may run ahead of the client's acknowledgements."""

from __future__ import annotations

import asyncio
import sys
from collections import deque

from masklet.errors import InvalidArgument


class Credits:
    """Numbers the responses and lets at most `window` frame results go unacknowledged.

    A credit is taken *before* a frame is tracked, so a client with a window of 1 that acknowledges frame t after
    sending its prompts for frame t + 1 knows that they are in time.

    Args:
        window: At least 1.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._taken = 0  # credits of frames whose result has no number yet
        self._frames: deque[int] = deque()  # sequences of frame results that are not acknowledged
        self._last_sent = 0
        self._last_acked = 0
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def available(self) -> int:
        """Frames that may be tracked now."""
        return self.window - self._taken - len(self._frames)

    async def take(self) -> None:
        """Wait until one more frame may be tracked; one task at a time."""
        while self.available < 1:
            self._changed.clear()
            await self._changed.wait()
        self._taken += 1

    def give_back(self) -> None:
        """There is no result after all for a credit that was taken."""
        self._taken -= 1
        self._changed.set()

    def lift(self) -> None:
        """No acknowledgement can come any more: from now on results go as fast as they are read."""
        self.window = sys.maxsize
        self._changed.set()

    async def settled(self) -> None:
        """Wait until every result is acknowledged, or the client can acknowledge no more."""
        while not self._closed and self.available < self.window:
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """No acknowledgement will come any more."""
        self._closed = True
        self._changed.set()

    def number_prompt(self) -> int:
        """The sequence of a prompt's result, which costs no credit of its own."""
        self._last_sent += 1
        return self._last_sent

    def number_frame(self) -> int:
        """The sequence of a frame's result, whose credit was taken before."""
        self._last_sent += 1
        self._taken -= 1
        self._frames.append(self._last_sent)
        return self._last_sent

    def ack(self, sequence: int) -> None:
        """Every response up to `sequence` has been taken.

        Raises:
            InvalidArgument: Nothing of that number was sent, or a later one was acknowledged before.
        """
        if sequence > self._last_sent:
            raise InvalidArgument.of("ack.sequence", f"is {sequence}, but the last response sent was {self._last_sent}")
        if sequence < self._last_acked:
            raise InvalidArgument.of(
                "ack.sequence", f"is {sequence}, but {self._last_acked} was acknowledged before; it never goes back"
            )
        self._last_acked = sequence
        while self._frames and self._frames[0] <= sequence:
            self._frames.popleft()
        self._changed.set()
