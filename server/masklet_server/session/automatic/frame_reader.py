"""Frames of a source, with a look ahead as far as SAM 2.1 needs one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from masklet_server.session.idle import IdleWatch
from masklet_server.session.ports import FrameSource
from masklet_server.video.frame import Frame

# SAM 2.1 encodes the age of an object's pointers relative to min(frames in the clip, 16): the length of a shorter clip
# must be known before its first object is tracked. `max_obj_ptrs_in_encoder` in its configurations.
POINTER_FRAMES = 16


@dataclass(frozen=True, eq=False)
class TakenFrame:
    """A frame to be tracked.

    Attributes:
        frame: It.
        step: Frames taken before it, which is what memory counts by: as the frame's index where none was skipped.
        skipped: Indices of frames before it, after the one taken before, that are not tracked.
    """

    frame: Frame
    step: int
    skipped: tuple[int, ...] = ()


class FrameFeed:
    """Hands out a source's frames, and can tell a short clip from a long one before they are handed out.

    Attributes:
        taken: Frames handed out so far.

    Args:
        source: Entered already.
        idle: Told of every decoded frame.
        frame_count: Frames the client says there are, which is believed; 0 where it does not say.
        live: The video has no known end, and nothing is looked for ahead.
        is_file: The source is fed whatever becomes of its frames, so that waiting for one more is always safe.
        most_ahead: Frames that `draw` takes from the source, at most.
        look_ahead: Frames to have beyond the one that was taken last, as far as they come by themselves.
    """

    def __init__(
        self,
        source: FrameSource,
        idle: IdleWatch,
        *,
        frame_count: int = 0,
        live: bool = False,
        is_file: bool = False,
        most_ahead: int = 0,
        look_ahead: int = 1,
    ) -> None:
        self.taken = 0
        self._source = source
        self._idle = idle
        self._promised = frame_count
        self._live = live
        self._is_file = is_file
        self._most_ahead = most_ahead
        self._look_ahead = look_ahead
        self._ahead: deque[Frame] = deque()
        self._ended = False
        self._drawing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What has to go on while frames are taken goes on within."""
        try:
            yield
        finally:
            if self._drawing is not None:
                self._drawing.cancel()
                await asyncio.gather(self._drawing, return_exceptions=True)
            self._drawing = None  # what it raised refers to this frame, and this to memory banks

    @property
    def frame_count(self) -> int:
        """Frames seen so far; all of them once the video has ended."""
        return self.taken

    @property
    def has_next(self) -> bool:
        """Whether there is a frame to `take` at once."""
        return bool(self._ahead)

    @property
    def at_end(self) -> bool:
        """Whether it is known that no frame is left."""
        return self._ended and not self._ahead

    async def ready(self) -> bool:
        """Wait for a frame to `take`; False after the last one. May be cancelled: no frame is lost."""
        if not self._ahead:
            await self._pull()
        return bool(self._ahead)

    async def peek(self) -> Frame | None:
        """The next frame, if it is known, or can be waited for without fear that the client waits for a result."""
        if not self._ahead and self._is_file:
            await self._pull()
        return self._ahead[0] if self._ahead else None

    async def draw(self) -> None:
        """Take pictures from the source while results can't be sent; may be cancelled.

        A source that is full stops the reading of the client's messages, and with it of the acknowledgements that are
        waited for: results of corrections may fill the window while pictures wait.
        """
        while len(self._ahead) < self._most_ahead and not self._ended:
            await self._pull()

    @property
    def upcoming(self) -> list[Frame]:
        """Frames after the one taken last that are there already and will be taken next."""
        return list(itertools.islice(self._ahead, self._look_ahead))

    def take(self) -> TakenFrame:
        """The frame that is to be tracked next; `ready` must have said that there is one. Those after it are drawn."""
        frame = self._ahead.popleft()
        self.taken += 1
        if len(self._ahead) < self._look_ahead:
            self._begin()
        return TakenFrame(frame, self.taken - 1)

    async def next(self) -> Frame | None:
        """The next frame, or None after the last one."""
        return self.take().frame if await self.ready() else None

    async def clip_length(self) -> int | None:
        """Frames in the clip if fewer than 16, else None; looks at most 16 frames into the clip to find out."""
        if self._live:
            return None
        if self._promised:
            # A promise of fewer frames than came is of no use: the model would divide by a distance that is too short.
            length = max(self._promised, self.taken)
            return length if length < POINTER_FRAMES else None
        while self.taken + len(self._ahead) < POINTER_FRAMES:
            await self._pull()
            if self._ended:
                return self.taken + len(self._ahead)
        return None

    def broken_promise(self) -> bool:
        """Whether the client's frame count was wrong in a way that matters to masks; to be asked after the end."""
        return bool(self._promised) and min(self._promised, POINTER_FRAMES) != min(self.taken, POINTER_FRAMES)

    async def _pull(self) -> None:
        """Have one more frame ahead, or know that there is none; goes on where a cancelled call has left off."""
        count = len(self._ahead)
        while len(self._ahead) == count and not self._ended:
            self._changed.clear()
            self._begin()
            if self._drawing is not None and self._drawing.done():
                self._drawing.result()  # tells why there is no frame
            await self._changed.wait()

    def _begin(self) -> None:
        """See to it that frames are drawn, unless there are none, or drawing has failed, which `_pull` tells."""
        if self._drawing is not None and self._drawing.done() and self._drawing.exception() is None:
            self._drawing = None
        if self._drawing is None and not self._ended:
            self._drawing = asyncio.create_task(self._draw_ahead())

    async def _draw_ahead(self) -> None:
        try:
            await self._draw()
            while len(self._ahead) < self._look_ahead and not self._ended:
                await self._draw()
        finally:
            self._changed.set()

    async def _draw(self) -> None:
        frame = await self._source.next_frame()
        self._idle.touch()
        if frame is None:
            self._ended = True
        else:
            self._arrived(frame)

    def _arrived(self, frame: Frame) -> None:
        self._ahead.append(frame)
        self._changed.set()
