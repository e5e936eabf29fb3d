"""Frames of a source, with a look ahead as far as SAM 2.1 needs one."""

from __future__ import annotations

from collections import deque

from masklet_server.session.idle import IdleWatch
from masklet_server.session.ports import Source
from masklet_server.video.source import Frame

# SAM 2.1 encodes the age of an object's pointers relative to min(frames in the clip, 16): the length of a shorter clip
# must be known before its first object is tracked. `max_obj_ptrs_in_encoder` in its configurations.
POINTER_FRAMES = 16


class FrameFeed:
    """Hands out a source's frames, and can tell a short clip from a long one before they are handed out.

    Attributes:
        taken: Frames handed out so far.

    Args:
        source: Entered already.
        idle: Told of every decoded frame.
        frame_count: Frames the client says there are, which is believed; 0 where it does not say.
    """

    def __init__(self, source: Source, idle: IdleWatch, *, frame_count: int = 0) -> None:
        self.taken = 0
        self._source = source
        self._idle = idle
        self._promised = frame_count
        self._ahead: deque[Frame] = deque()
        self._ended = False

    async def next(self) -> Frame | None:
        """The next frame, or None after the last one."""
        frame = self._ahead.popleft() if self._ahead else await self._pull()
        if frame is not None:
            self.taken += 1
        return frame

    async def clip_length(self) -> int | None:
        """Frames in the clip if fewer than 16, else None; looks at most 16 frames into the clip to find out."""
        if self._promised:
            # A promise of fewer frames than came is of no use: the model would divide by a distance that is too short.
            length = max(self._promised, self.taken)
            return length if length < POINTER_FRAMES else None
        while self.taken + len(self._ahead) < POINTER_FRAMES:
            frame = await self._pull()
            if frame is None:
                return self.taken + len(self._ahead)
            self._ahead.append(frame)
        return None

    def broken_promise(self) -> bool:
        """Whether the client's frame count was wrong in a way that matters to masks; to be asked after the end."""
        return bool(self._promised) and min(self._promised, POINTER_FRAMES) != min(self.taken, POINTER_FRAMES)

    async def _pull(self) -> Frame | None:
        if self._ended:
            return None
        frame = await self._source.next_frame()
        self._idle.touch()
        self._ended = frame is None
        return frame
