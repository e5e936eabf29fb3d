"""Frames of an uploaded video file, decoded while it is still arriving."""

from __future__ import annotations

import os

from masklet.errors import FailedPrecondition
from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.video.frame import Frame
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import FrameDecoded, Setup, SlotFree, UploadArrived
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.clip_redecoder import ClipRedecoder, FrameRecords, SpooledClip
from masklet_server.video.sources.sandboxed import SandboxedSource
from masklet_server.video.sources.spool import Spool


class ClipSource(SandboxedSource):
    """Gives the frames of a video file that arrives in chunks.

    Faststart and fragmented MP4, Matroska, WebM and MPEG-TS give frames while they arrive. An MP4 with its index at the
    end gives them when it is complete. `worker.clip_decoder` says which frames come out, and `formats` what is allowed.
    """

    def __init__(
        self, image_size: int, limits: VideoLimits, *, frames_ahead: int = 4, share: ClientShare = UNBOUNDED
    ) -> None:
        super().__init__(image_size, limits, frames_ahead=frames_ahead, share=share)
        self._spool: Spool | None = None
        self._records = FrameRecords()

    async def _start(self) -> DecoderProcess:
        self._spool = Spool(self._limits.max_upload_bytes, self._share.disk)
        upload_fd = -1
        try:
            upload_fd = self._spool.open_for_reading()
            setup = Setup.for_frames("clip", self._image_size, self._frames_ahead, self._limits)
            return await DecoderProcess.start(setup, upload_fd)
        except BaseException:
            self._spool.close()
            raise
        finally:
            if upload_fd >= 0:
                os.close(upload_fd)

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file.

        They are dropped if the decoder has ended, for which `next_frame` has the error.

        Raises:
            FailedPrecondition: `end` was called before.
            ResourceExhausted: There are more than `max_upload_bytes` in all, or the server's disk is full.
        """
        if self._ended:
            raise FailedPrecondition("video_chunk: came after end_of_video; send all of the video before it")
        if self._over or not chunk:
            return
        assert self._spool is not None
        await self._spool.append(chunk)
        await self._decoder.send(UploadArrived(self._spool.size))

    def redecode(self, frame_index: int) -> ClipRedecoder:
        """Decode the clip once more, from that frame on, which must have been taken before.

        The redecoder must be entered before this source is left.
        """
        assert self._spool is not None
        clip = SpooledClip(self._spool, self._records, self._image_size, self._limits, self._share)
        return ClipRedecoder(clip, frame_index)

    def _frame_of(self, message: FrameDecoded) -> Frame:
        frame = super()._frame_of(message)
        self._records.add(frame)
        return frame

    def _on_taken(self) -> None:
        self._decoder.write(SlotFree())

    def _free(self) -> None:
        if self._spool is not None:
            self._spool.close()
