"""Frames of an uploaded video file, decoded while it is still arriving."""

from __future__ import annotations

import os

from masklet.errors import FailedPrecondition
from masklet_server.video import messages
from masklet_server.video.frame import Frame
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.clip_redecoder import ClipRedecoder, FirstPass
from masklet_server.video.sources.sandboxed import SandboxedSource
from masklet_server.video.sources.spool import Spool


class ClipSource(SandboxedSource):
    """A video file that arrives in chunks.

    Faststart and fragmented MP4, Matroska, WebM and MPEG-TS give frames while they arrive; an MP4 with its index at the
    end does when it is complete. See `_clip` for what is decided about frames, and `formats` for what is allowed.
    """

    def __init__(self, image_size: int, limits: VideoLimits, *, frames_ahead: int = 4) -> None:
        """See `SandboxedSource`."""
        super().__init__(image_size, limits, frames_ahead=frames_ahead)
        self._spool: Spool | None = None
        self._first_pass = FirstPass()

    async def _start(self) -> DecoderProcess:
        self._spool = Spool(self._limits.max_upload_bytes)
        reading = -1
        try:
            reading = self._spool.open_for_reading()
            return await DecoderProcess.start(
                "clip", image_size=self._image_size, slots=self._frames_ahead, limits=self._limits, spool_fd=reading
            )
        except BaseException:
            self._spool.close()
            raise
        finally:
            if reading >= 0:
                os.close(reading)

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file. Dropped once the decoder has had its last word, which `next_frame` gives.

        Raises:
            FailedPrecondition: After `end`.
            ResourceExhausted: More than `max_upload_bytes` in all, or the server's disk is full.
        """
        if self._ended:
            raise FailedPrecondition("video_chunk: the video was ended; nothing may follow end_of_video")
        if self._over or not chunk:
            return
        assert self._spool is not None
        await self._spool.append(chunk)
        await self._decoder.send("arrived", size=self._spool.size)

    def redecode(self, frame_index: int) -> ClipRedecoder:
        """The frames from that one on once more, the very same; it must have been taken before.

        To be entered while this source is.
        """
        assert self._spool is not None
        return ClipRedecoder(self._spool, self._first_pass, frame_index, self._image_size, self._limits)

    def _frame_of(self, message: messages.Message) -> Frame:
        frame = super()._frame_of(message)
        self._first_pass.add(frame)
        return frame

    def _on_taken(self) -> None:
        self._decoder.write("free")

    def _free(self) -> None:
        if self._spool is not None:
            self._spool.close()
