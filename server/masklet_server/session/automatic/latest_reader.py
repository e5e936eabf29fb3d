"""Readers of live sources for sessions that want only the latest frames."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from masklet_server.session.automatic.frame_reader import FrameReader, ReaderOptions
from masklet_server.session.idle import IdleWatch
from masklet_server.session.jobs import TrackedFrame
from masklet_server.session.ports import FrameSource, LatestPictureSource
from masklet_server.video.frame import Frame
from masklet_server.video.sources.latest_queue import LatestQueue

# Number of frames whose times predict when the next one will be wanted.
_REMEMBERED = 5
_LIVE = ReaderOptions(live=True)
# For so long a decoded frame is good enough, whatever its age. Without this, the tracker of a busy server could wait
# for ever.
_GOOD_SECONDS = 0.02


class LatestReader(FrameReader):
    """Reads frames from a live source as fast as they come, and skips those that have waited too long.

    `LatestQueue` decides which ones are skipped.

    Args:
        source: Entered already.
        idle: Notified of every decoded frame.
        max_latency_seconds: How long a frame may wait after its data has arrived.
        clock: The clock of `Frame.arrived_seconds`.
        options: What was read before, in a session that was restored.
    """

    def __init__(
        self,
        source: FrameSource,
        idle: IdleWatch,
        *,
        max_latency_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        options: ReaderOptions = _LIVE,
    ) -> None:
        super().__init__(source, idle, options)
        self._clock = clock
        self._queue: LatestQueue[Frame] = LatestQueue(max_latency_seconds, clock=clock)
        self._seen = self._first_index = self._next_index = options.first_index

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Frames are read from the source inside the block."""
        pump = asyncio.create_task(self._pump())
        try:
            yield
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            self._failure = None  # its traceback refers to this frame, which refers to memory banks

    @property
    def frame_count(self) -> int:
        """As `FrameReader.frame_count`; skipped frames count too."""
        return self._seen

    @property
    def has_next(self) -> bool:
        """As `FrameReader.has_next`: whether there is a frame for `take`."""
        return len(self._queue) > 0

    async def ready(self) -> bool:
        """Wait for a frame for `take`. Returns False after the last one.

        Raises:
            MaskletError: The source has failed, and all frames before the failure are taken.
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
        """The frame that `take` would give now; None if there is none."""
        return self._queue.peek() if self._queue else None

    def take(self) -> TrackedFrame:
        """Take the oldest frame that has not waited too long, or the newest one if all have."""
        frame = self._queue.pop()
        skipped = tuple(range(self._next_index, frame.index))
        self._next_index = frame.index + 1
        self.taken += 1
        return TrackedFrame(frame, self.taken - 1, skipped)

    async def _pump(self) -> None:
        try:
            while not self._ended:
                await self._until_wanted()
                await self._read_one()
        finally:
            self._changed.set()

    async def _until_wanted(self) -> None:
        """Wait until one more frame should be read from the source."""

    def _arrived(self, frame: Frame) -> None:
        if frame.index < self._first_index:
            return
        self._seen = frame.index + 1
        self._queue.push(frame, frame.arrived_seconds, frame.pixels.nbytes)
        self._changed.set()


class PacedReader(LatestReader):
    """Decodes one picture shortly before the next frame is wanted, and does not decode the others.

    On a server that can't keep up, decoding pictures that are then skipped would waste the processors' time. When a
    frame is taken, the times of the last frames predict when the next one will be taken. Shortly before, the latest
    picture is decoded. If the prediction was wrong, and the picture is too old when the frame is taken, one more is
    decoded while the tracker waits. The arguments are those of `LatestReader`.
    """

    def __init__(
        self,
        source: LatestPictureSource,
        idle: IdleWatch,
        *,
        max_latency_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        options: ReaderOptions = _LIVE,
    ) -> None:
        super().__init__(source, idle, max_latency_seconds=max_latency_seconds, clock=clock, options=options)
        self._pictures = source
        self._asked = asyncio.Event()
        self._is_awaited = False  # whether the tracker waits for a frame
        self._decoded_at = 0.0
        self._taken_at: float | None = None
        self._due = 0.0
        self._track_seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._decode_seconds: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def has_next(self) -> bool:
        """Whether there is a frame for `take`, and no newer one should be decoded first."""
        return super().has_next and not self._is_outdated

    async def ready(self) -> bool:
        """As `LatestReader.ready`; a picture is decoded now if none is ready."""
        self._on_tracked()
        self._is_awaited = True
        self._asked.set()
        try:
            return await super().ready()
        finally:
            self._is_awaited = False

    def take(self) -> TrackedFrame:
        """As `LatestReader.take`; predicts when the next frame will be wanted."""
        self._on_tracked()
        taken = super().take()
        self._taken_at = self._clock()
        self._due = self._taken_at + min(self._track_seconds, default=0.0) - max(self._decode_seconds, default=0.0)
        self._asked.set()
        return taken

    def _on_tracked(self) -> None:
        """The tracker has finished the frame taken last: remember how long that took."""
        if self._taken_at is not None:
            self._track_seconds.append(self._clock() - self._taken_at)
            self._taken_at = None

    @property
    def _is_outdated(self) -> bool:
        is_good = self._clock() <= self._decoded_at + _GOOD_SECONDS
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
        self._decode_seconds.append(frame.decode_seconds)
        self._decoded_at = self._clock()
        super()._arrived(frame)
