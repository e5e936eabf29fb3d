"""Credits: how many frame results may be sent before the client acknowledges them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator

from masklet.errors import InvalidArgument
from masklet_server.session.events import NO_REPLAY, Replay
from masklet_server.session.restoring.state import CreditState

# Handing a response to the network takes no longer than this, unless the client does not read.
UNREAD_SECONDS = 0.25


class ResultsWait:
    """Knows whether results wait for the client: for an acknowledgement, or because the client does not read.

    While they do, the session must read on, however much video comes: the acknowledgement may be behind it, or the
    client may read only when it has sent everything.
    """

    def __init__(self) -> None:
        self._for_ack_since: float | None = None
        self._for_ack = asyncio.Event()
        self._is_unread = False
        self._any = asyncio.Event()

    @property
    def for_ack_since(self) -> float | None:
        """Since when, by `time.monotonic`, a result waits for an acknowledgement; None if none does."""
        return self._for_ack_since

    @contextlib.contextmanager
    def for_ack(self) -> Iterator[None]:
        """A result waits for an acknowledgement inside the block. Blocks must not overlap."""
        self._for_ack_since = time.monotonic()
        self._for_ack.set()
        self._any.set()
        try:
            yield
        finally:
            self._for_ack_since = None
            self._for_ack.clear()
            self._update()

    @contextlib.contextmanager
    def for_reading(self) -> Iterator[None]:
        """A response is handed to the network inside the block. If it takes long, the client does not read.

        Blocks must not overlap.
        """
        handle = asyncio.get_running_loop().call_later(UNREAD_SECONDS, self._on_unread)
        try:
            yield
        finally:
            handle.cancel()
            self._is_unread = False
            self._update()

    async def begun(self) -> None:
        """Wait until results wait for the client."""
        await self._any.wait()

    async def begun_for_ack(self) -> None:
        """Wait until a result waits for an acknowledgement."""
        await self._for_ack.wait()

    def _on_unread(self) -> None:
        self._is_unread = True
        self._any.set()

    def _update(self) -> None:
        if not self._for_ack.is_set() and not self._is_unread:
            self._any.clear()


class Credits:
    """Numbers the responses, and allows at most `window` frame results without an acknowledgement.

    A credit is taken *before* a frame is tracked. So a client with a window of 1 can send its prompts for frame t + 1,
    then acknowledge frame t, and know that the prompts are in time.

    Attributes:
        window: Number of frame results that may be sent before the first of them is acknowledged.
        results_wait: Whether results wait for the client.
        has_heard: The client has sent an acknowledgement, be it right or wrong.

    Args:
        window: At least 1.
        replay: What the client has and has acknowledged already, if the session begins anew.
    """

    def __init__(self, window: int, replay: Replay = NO_REPLAY) -> None:
        self.window = window
        self.results_wait = ResultsWait()
        self.has_heard = False
        self._taken = 0  # credits of frames whose results have no number yet
        self._frames: deque[int] = deque()  # numbers of the frame results that are not acknowledged
        self._last_sent = 0
        self._last_acked = replay.last_ack
        self._known = replay.last_sequence
        self._changed = asyncio.Event()
        self._is_lifted = False

    @property
    def available(self) -> int:
        """Number of frames that may be tracked now."""
        return self.window - self._taken - len(self._frames)

    async def take(self) -> None:
        """Wait until one more frame may be tracked. Only one task may wait at a time."""
        if self.available < 1:
            with self.results_wait.for_ack():
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
        self._is_lifted = True
        self._changed.set()

    async def all_acknowledged(self) -> None:
        """Wait until every result is acknowledged, or `lift` is called."""
        while not self._is_lifted and self.available < self.window:
            self._changed.clear()
            await self._changed.wait()

    def dump(self) -> CreditState:
        """The numbering, while no frame is under way."""
        return CreditState(self._last_sent, list(self._frames), self._last_acked)

    def restore(self, state: CreditState) -> None:
        """Go on with the numbering of a session that was restored; what the client has acknowledged since is known."""
        self._last_sent = state.last_sent
        self._last_acked = max(self._last_acked, state.last_acked)
        self._frames = deque(state.frames)
        self._release()

    def number_prompt(self) -> int:
        """The sequence number for a prompt's result, which needs no credit."""
        self._last_sent += 1
        return self._last_sent

    def number_frame(self) -> int:
        """The sequence number for a frame's result, whose credit was taken before."""
        self._last_sent += 1
        self._taken -= 1
        self._frames.append(self._last_sent)
        self._release()  # the client may have it already
        return self._last_sent

    def ack(self, sequence: int) -> None:
        """The client has taken every response up to `sequence`.

        Raises:
            InvalidArgument: No response has that number, or a later one was acknowledged before.
        """
        self.has_heard = True
        if sequence > max(self._last_sent, self._known):
            raise InvalidArgument.of("ack.sequence", f"is {sequence}, but the last response sent was {self._last_sent}")
        if sequence < self._last_acked:
            raise InvalidArgument.of(
                "ack.sequence", f"is {sequence}, but {self._last_acked} was acknowledged before; it must not go back"
            )
        self._last_acked = sequence
        self._release()

    def _release(self) -> None:
        while self._frames and self._frames[0] <= self._last_acked:
            self._frames.popleft()
        self._changed.set()
