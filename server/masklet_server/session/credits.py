"""Credits: how many frame results may be sent before the client acknowledges them."""

from __future__ import annotations

import asyncio
import sys
from collections import deque

from masklet.errors import InvalidArgument


class Credits:
    """Numbers the responses, and allows at most `window` frame results without an acknowledgement.

    A credit is taken *before* a frame is tracked. So a client with a window of 1 can send its prompts for frame t + 1,
    then acknowledge frame t, and know that the prompts are in time.

    Attributes:
        window: Number of frame results that may be sent before the first of them is acknowledged.

    Args:
        window: At least 1.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._taken = 0  # credits of frames whose results have no number yet
        self._frames: deque[int] = deque()  # numbers of the frame results that are not acknowledged
        self._last_sent = 0
        self._last_acked = 0
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def available(self) -> int:
        """Number of frames that may be tracked now."""
        return self.window - self._taken - len(self._frames)

    async def take(self) -> None:
        """Wait until one more frame may be tracked. Only one task may wait at a time."""
        while self.available < 1:
            self._changed.clear()
            await self._changed.wait()
        self._taken += 1

    def give_back(self) -> None:
        """Return a credit that was taken, because there is no result for it."""
        self._taken -= 1
        self._changed.set()

    def lift(self) -> None:
        """The client can acknowledge no more: from now on, results are sent as fast as it reads them."""
        self.window = sys.maxsize
        self._changed.set()

    async def all_acknowledged(self) -> None:
        """Wait until every result is acknowledged, or `close` is called."""
        while not self._closed and self.available < self.window:
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """The client can acknowledge no more: `all_acknowledged` need not wait."""
        self._closed = True
        self._changed.set()

    def number_prompt(self) -> int:
        """The sequence number for a prompt's result, which needs no credit."""
        self._last_sent += 1
        return self._last_sent

    def number_frame(self) -> int:
        """The sequence number for a frame's result, whose credit was taken before."""
        self._last_sent += 1
        self._taken -= 1
        self._frames.append(self._last_sent)
        return self._last_sent

    def ack(self, sequence: int) -> None:
        """The client has taken every response up to `sequence`.

        Raises:
            InvalidArgument: No response has that number, or a later one was acknowledged before.
        """
        if sequence > self._last_sent:
            raise InvalidArgument.of("ack.sequence", f"is {sequence}, but the last response sent was {self._last_sent}")
        if sequence < self._last_acked:
            raise InvalidArgument.of(
                "ack.sequence", f"is {sequence}, but {self._last_acked} was acknowledged before; it must not go back"
            )
        self._last_acked = sequence
        while self._frames and self._frames[0] <= sequence:
            self._frames.popleft()
        self._changed.set()
