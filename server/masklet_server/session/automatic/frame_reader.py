"""Reads a source's frames for the tracking loop, with a look ahead as far as SAM 2.1 needs one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from masklet.errors import MaskletError
from masklet_server.session.idle import IdleWatch
from masklet_server.session.jobs import POINTER_FRAMES, TrackedFrame
from masklet_server.session.ports import FrameSource
from masklet_server.video.frame import Frame

# After such a pause, a client that sends pictures is taken to wait for a result.
PAUSE_SECONDS = 10.0


@dataclass(frozen=True)
class ReaderOptions:
    """How a `FrameReader` reads.

    Attributes:
        frame_count: Number of frames according to the client, which is believed; 0 if the client does not say.
        live: The video has no known end, so nothing is read to find out its length.
        is_file: The source is fed whatever happens to its frames, so waiting for one more frame is always safe.
        look_ahead: Number of frames that are read before they are asked for, as far as they come by themselves.
        taken: Number of frames that were taken before, in a session that was restored.
        is_long: Such a session's clip was taken to have 16 frames or more.
        first_index: Where only the latest frames are wanted, those before this one are known to the client, or were
            skipped.
    """

    frame_count: int = 0
    live: bool = False
    is_file: bool = False
    look_ahead: int = 1
    taken: int = 0
    is_long: bool = False
    first_index: int = 0


class FrameReader:
    """Gives a source's frames in order, and can tell a short clip from a long one before it gives its first frame.

    If the source fails because of the video, the frames before the failure are a clip like any other. The failure is
    raised where the next frame is waited for. If the server itself is the cause, another try may give more frames.
    Then nobody knows how long the clip is, and nothing is made of frames whose masks depend on it.

    Attributes:
        taken: Number of frames given so far.
        is_long: The clip is taken to have 16 frames or more, because its client has paused.

    Args:
        source: Entered already.
        idle: Notified of every decoded frame.
        options: How to read.
    """

    def __init__(self, source: FrameSource, idle: IdleWatch, options: ReaderOptions = ReaderOptions()) -> None:
        self.taken = options.taken
        self._source = source
        self._idle = idle
        self._options = options
        self._ahead: deque[Frame] = deque()
        self._ended = False
        self._failure: MaskletError | None = None
        self.is_long = options.is_long
        self._reading: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Frames are read in the background inside the block."""
        try:
            yield
        finally:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)
            # Their tracebacks refer to this frame, which refers to memory banks.
            self._reading = self._failure = None

    @property
    def frame_count(self) -> int:
        """Number of frames the source gave so far; all of the video's once it has ended."""
        return self.taken

    @property
    def has_next(self) -> bool:
        """Whether there is a frame for `take`."""
        return bool(self._ahead)

    @property
    def at_end(self) -> bool:
        """Whether the source has ended without a failure, and all its frames are taken."""
        return self._ended and self._failure is None and not self.has_next

    @property
    def undecoded_at_end(self) -> tuple[int, ...]:
        """After the end: times in nanoseconds of the frames behind the last one that could not be decoded."""
        return self._source.undecoded_at_end

    async def ready(self) -> bool:
        """Wait for a frame for `take`. Returns False after the last one. If it is cancelled, no frame is lost.

        Raises:
            MaskletError: The source has failed, and all frames before the failure are taken.
        """
        if not self._ahead:
            await self._pull()
        if not self._ahead and self._failure is not None:
            raise self._failure
        return bool(self._ahead)

    async def peek(self) -> Frame | None:
        """The next frame, which stays there; None if there is none yet.

        A file's frame is waited for. Pictures and packets are not: their client may wait for a result before it sends
        more.
        """
        if not self._ahead and self._options.is_file:
            await self._pull()
        return self._ahead[0] if self._ahead else None

    @property
    def upcoming(self) -> list[Frame]:
        """The frames after the one taken last, as far as they are read already and within the look ahead."""
        return list(itertools.islice(self._ahead, self._options.look_ahead))

    def take(self) -> TrackedFrame:
        """Take the next frame, if `has_next`, and begin to read those after it."""
        frame = self._ahead.popleft()
        self.taken += 1
        if len(self._ahead) < self._options.look_ahead:
            self._begin()
        return TrackedFrame(frame, self.taken - 1)

    async def next(self) -> Frame | None:
        """Wait for the next frame and take it; None after the last one."""
        return self.take().frame if await self.ready() else None

    async def clip_length(self) -> int | None:
        """Number of frames in the clip if fewer than 16, else None; reads at most 16 frames to find out.

        If a client that sends pictures pauses meanwhile, it may wait for a result before it sends more. After
        `PAUSE_SECONDS` the clip then counts as a long one.

        Raises:
            MaskletError: The source has failed before that was known, and another try may find more frames.
        """
        if self._options.live or self.is_long:
            return None
        if self._options.frame_count:
            # Never fewer than have come: the model would divide by a distance that is too short.
            length = max(self._options.frame_count, self.taken)
            return length if length < POINTER_FRAMES else None
        while self.taken + len(self._ahead) < POINTER_FRAMES:
            if not await self._pull_unless_paused():
                self.is_long = True
                return None
            if self._failure is not None and self._failure.retry_after_seconds is not None:
                raise self._failure
            if self._ended:
                return self.taken + len(self._ahead)
        return None

    def is_frame_count_wrong(self) -> bool:
        """After the end: whether the client's frame count was wrong in a way that changes masks."""
        promised = self._options.frame_count
        return bool(promised) and min(promised, POINTER_FRAMES) != min(self.taken, POINTER_FRAMES)

    async def _pull_unless_paused(self) -> bool:
        """As `_pull`; returns False if nothing came from the client of a series of pictures for `PAUSE_SECONDS`."""
        if self._options.is_file:
            await self._pull()
            return True
        # Not wait_for: before Python 3.12, it loses a cancellation that comes together with the result.
        pulling = asyncio.create_task(self._pull())
        try:
            while not pulling.done() and (patience := PAUSE_SECONDS - self._idle.quiet_seconds) > 0:
                await asyncio.wait({pulling}, timeout=patience)
            if pulling.done():
                pulling.result()
                return True
            return False
        finally:
            pulling.cancel()
            await asyncio.gather(pulling, return_exceptions=True)
            del pulling  # its exception refers to this frame

    async def _pull(self) -> None:
        """Read one more frame, or find out that there is none. Continues what a cancelled call has begun."""
        count = len(self._ahead)
        while len(self._ahead) == count and not self._ended:
            self._changed.clear()
            self._begin()
            if self._reading is not None and self._reading.done():
                self._reading.result()  # raises the reason why there is no frame
            await self._changed.wait()

    def _begin(self) -> None:
        """Begin to read in the background, unless the source has ended, or has failed, which `_pull` raises."""
        if self._reading is not None and self._reading.done() and self._reading.exception() is None:
            self._reading = None
        if self._reading is None and not self._ended:
            self._reading = asyncio.create_task(self._read_in_background())

    async def _read_in_background(self) -> None:
        try:
            await self._read_one()
            while len(self._ahead) < self._options.look_ahead and not self._ended:
                await self._read_one()
        finally:
            self._changed.set()

    async def _read_one(self) -> None:
        frame = None
        try:
            frame = await self._source.next_frame()
        except MaskletError as error:
            self._failure = error
        self._idle.touch()
        if frame is None:
            self._ended = True
        else:
            self._arrived(frame)

    def _arrived(self, frame: Frame) -> None:
        self._ahead.append(frame)
        self._changed.set()
