"""The frames of a spooled clip that have left the correction window, decoded again to be corrected."""

from __future__ import annotations

from array import array
from contextlib import AsyncExitStack

from masklet_server.session.idle import IdleWatch
from masklet_server.session.jobs import TrackedFrame
from masklet_server.session.ports import ClipRedecoder, ClipSource


class RedecodedFrames:
    """Decodes a clip again from any frame on, and knows how often each frame's result was sent again.

    It holds 4 bytes for each frame, and a second decoding process while frames are read.

    Args:
        clip: The client's clip, which the session keeps open.
        idle: Knows that the server is at work.
    """

    def __init__(self, clip: ClipSource, idle: IdleWatch) -> None:
        self._clip = clip
        self._idle = idle
        self._revisions = array("I")
        self._clip_lengths: dict[int, int] = {}
        self._held = AsyncExitStack()
        self._source: ClipRedecoder | None = None
        self._next = 0

    def note(self, frame_index: int, revision: int, clip_length: int | None) -> None:
        """The next frame has left the correction window.

        Args:
            frame_index: The frame's.
            revision: How often the frame's result was sent again.
            clip_length: As when the frame was tracked. Only frames of a clip of at most 15 frames have one.
        """
        assert frame_index == len(self._revisions), "frames leave the window in order"
        self._revisions.append(revision)
        if clip_length is not None:
            self._clip_lengths[frame_index] = clip_length

    def count_revision(self, frame_index: int) -> int:
        """The frame's result is about to be sent again; how often that has happened, this time included."""
        self._revisions[frame_index] += 1
        return self._revisions[frame_index]

    async def fetch(self, frame_index: int) -> TrackedFrame:
        """Decode a frame that has left the window. The frame after the one fetched last comes quickly.

        Raises:
            DataLoss: The frame can't be decoded to the same pixels again.
            MaskletError: Decoding costs more than the limits allow.
        """
        with self._idle.busy():
            if self._source is None or frame_index != self._next:
                await self.close()
                self._source = await self._held.enter_async_context(self._clip.redecode(frame_index))
                self._next = frame_index
            frame = await self._source.next_frame()
        self._next += 1
        # No frame of a clip is skipped, so steps are indices.
        return TrackedFrame(frame, frame_index, clip_length=self._clip_lengths.get(frame_index))

    async def close(self) -> None:
        """End the second decoding process, if there is one."""
        self._source = None
        await self._held.aclose()
