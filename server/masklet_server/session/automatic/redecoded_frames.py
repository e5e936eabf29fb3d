"""The frames of a spooled clip that the correction window has left: decoded again when one of them is corrected."""

from __future__ import annotations

from array import array
from contextlib import AsyncExitStack

from masklet_server.session.idle import IdleWatch
from masklet_server.session.ports import ClipRedecoder, ClipSource
from masklet_server.video.frame import Frame


class EarlierFrames:
    """Reads a clip from any frame on, and knows of each frame what results of it were sent.

    Of each frame 4 bytes are held, and while some are read a second decoding process.

    Args:
        clip: The client's, still held by the session.
        idle: Told that the server is at work.
    """

    def __init__(self, clip: ClipSource, idle: IdleWatch) -> None:
        self._clip = clip
        self._idle = idle
        self._revisions = array("I")
        self._clip_lengths: dict[int, int] = {}
        self._held = AsyncExitStack()
        self._source: ClipRedecoder | None = None
        self._next = 0

    def note(self, frame_index: int, revision: int, clip_length: int | None = None) -> None:
        """The next frame has left the window, or one that has was sent again.

        Args:
            frame_index: The frame's.
            revision: How often it was sent again.
            clip_length: As when it was tracked; fewer than 16, so that at most 15 frames have one.
        """
        if clip_length is not None:
            self._clip_lengths[frame_index] = clip_length
        if frame_index == len(self._revisions):
            self._revisions.append(revision)
        else:
            self._revisions[frame_index] = revision

    async def frame(self, frame_index: int) -> tuple[Frame, int | None, int]:
        """A frame that has left the window, its clip length, and its revision; quick for the one after the last asked.

        Raises:
            DataLoss: It can't be decoded to the same pixels again.
            MaskletError: Decoding costs more than the limits allow.
        """
        with self._idle.busy():
            if self._source is None or frame_index != self._next:
                await self.close()
                self._source = await self._held.enter_async_context(self._clip.redecode(frame_index))
                self._next = frame_index
            frame = await self._source.next_frame()
        self._next += 1
        return frame, self._clip_lengths.get(frame_index), self._revisions[frame_index]

    async def close(self) -> None:
        """End the second decoding process, if there is one."""
        self._source = None
        await self._held.aclose()
