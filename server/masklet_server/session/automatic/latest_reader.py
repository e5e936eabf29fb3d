"""Frames of a live source of which only the latest are wanted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from masklet.errors import MaskletError
from masklet_server.session.automatic.frame_reader import FrameFeed, TakenFrame
from masklet_server.session.idle import IdleWatch
from masklet_server.session.ports import FrameSource, LatestPictureSource
from masklet_server.video.frame import Frame
from masklet_server.video.sources.latest_queue import LatestQueue

_REMEMBERED = 5  # frames whose times tell when the next one will be wanted
# A decoded frame is good for so long, whatever its age: or the tracker of a busy server would wait for ever.
_GOOD_SECONDS = 0.02


class LatestFeed(FrameFeed):
    """Takes frames from a live source as fast as they come, and hands out those that have not waited too long.

    See `LatestQueue` for those that are skipped.

    Args:
        source: Entered already.
        idle: Told of every decoded frame.
        max_latency_seconds: How long a frame may wait, from when its data arrived.
        clock: What `Frame.arrived_seconds` is told by.
    """

    def __init__(
        self,
        source: FrameSource,
        idle: IdleWatch,
        *,
        max_latency_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(source, idle, live=True)
        self._clock = clock
        self._queue: LatestQueue[Frame] = LatestQueue(max_latency_seconds, clock=clock)
        self._seen = 0
        self._next_index = 0
        self._failure: MaskletError | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Frames are taken from the source within."""
        pump = asyncio.create_task(self._pump())
        try:
            yield
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    @property
    def frame_count(self) -> int:
        """See `FrameFeed.frame_count`; counts skipped frames, too."""
        return self._seen

    @property
    def has_next(self) -> bool:
        """See `FrameFeed.has_next`."""
        return len(self._queue) > 0

    @property
    def at_end(self) -> bool:
        """See `FrameFeed.at_end`."""
        return self._ended and not self._queue

    async def ready(self) -> bool:
        """Wait for a frame to `take`; False after the last one.

        Raises:
            MaskletError: The source failed, after the last frame that could be had.
        """
        while not self.has_next:
            if not self._queue and self._failure is not None:
                raise self._failure
            if self.at_end:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    async def peek(self) -> Frame | None:
        """See `FrameFeed.peek`."""
        return self._queue.peek() if self._queue else None

    def take(self) -> TakenFrame:
        """The oldest frame that has not waited too long, or else the newest one."""
        frame = self._queue.pop()
        skipped = tuple(range(self._next_index, frame.index))
        self._next_index = frame.index + 1
        self.taken += 1
        return TakenFrame(frame, self.taken - 1, skipped)

    async def _pump(self) -> None:
        try:
            while not self._ended:
                await self._until_wanted()
                await self._draw()
        except MaskletError as error:
            self._failure = error
        finally:
            self._changed.set()

    async def _until_wanted(self) -> None:
        """Wait until one more frame should be taken from the source."""

    def _arrived(self, frame: Frame) -> None:
        self._seen = frame.index + 1
        self._queue.push(frame, frame.arrived_seconds, frame.pixels.nbytes)
        self._changed.set()


class PacedFeed(LatestFeed):
    """Has a picture decoded in time for when the next frame will be wanted, and the others not at all.

    On a server that can't keep up, pictures that nobody sees would take its processors' time. When a frame is taken,
    the times of the last ones tell when the next one will be; the picture that is the latest shortly before is decoded.
    Where that has become too old all the same, because the next frame was wanted later than was to be expected, one
    more is decoded while the tracker waits. Its arguments are those of `LatestFeed`.
    """

    def __init__(
        self,
        source: LatestPictureSource,
        idle: IdleWatch,
        *,
        max_latency_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(source, idle, max_latency_seconds=max_latency_seconds, clock=clock)
        self._pictures = source
        self._asked = asyncio.Event()
        self._is_awaited = False  # the tracker has nothing else to do
        self._made_at = 0.0
        self._taken_at: float | None = None
        self._due = 0.0
        self._busy: deque[float] = deque(maxlen=_REMEMBERED)
        self._making: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def has_next(self) -> bool:
        """Whether there is a frame to `take` at once, and no better one to be had."""
        return super().has_next and not self._is_outdated

    async def ready(self) -> bool:
        """See `LatestFeed.ready`."""
        self._on_back()
        self._is_awaited = True
        self._asked.set()
        try:
            return await super().ready()
        finally:
            self._is_awaited = False

    def take(self) -> TakenFrame:
        """See `LatestFeed.take`."""
        self._on_back()
        taken = super().take()
        self._taken_at = self._clock()
        self._due = self._taken_at + min(self._busy, default=0.0) - max(self._making, default=0.0)
        self._asked.set()
        return taken

    def _on_back(self) -> None:
        """The tracker is done with the frame taken last."""
        if self._taken_at is not None:
            self._busy.append(self._clock() - self._taken_at)
            self._taken_at = None

    @property
    def _is_outdated(self) -> bool:
        is_good = self._clock() <= self._made_at + _GOOD_SECONDS
        return not is_good and self._queue.is_late and self._pictures.has_waiting

    async def _until_wanted(self) -> None:
        while not self._is_wanted:
            self._asked.clear()
            patience = None if self._queue else self._due - self._clock()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._asked.wait(), patience)

    @property
    def _is_wanted(self) -> bool:
        if self._is_awaited:
            return not self._queue or self._is_outdated
        return not self._queue and self._clock() >= self._due

    def _arrived(self, frame: Frame) -> None:
        self._making.append(frame.decode_seconds)
        self._made_at = self._clock()
        super()._arrived(frame)
