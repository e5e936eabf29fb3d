"""Frames of an uploaded video file, decoded while it is still arriving."""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import IO

from masklet.errors import FailedPrecondition, ResourceExhausted
from masklet_server.video import messages
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.clip_redecoder import ClipAgain, FirstPass
from masklet_server.video.sources.sandboxed import SandboxedSource
from masklet_server.video.sources.source import Frame, VideoLimits


class Spool:
    """A temporary file without a name that takes an upload, up to a size."""

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self._max_bytes = max_bytes
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
        self._writing: asyncio.Future[None] | None = None

    def open_for_reading(self) -> int:
        """A read-only descriptor, to be closed by the caller; has a position of its own."""
        return os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

    async def append(self, chunk: bytes) -> None:
        """Write at the end, outside the event loop.

        Raises:
            ResourceExhausted: The file would grow too large, or the disk is full.
        """
        if self.size + len(chunk) > self._max_bytes:
            raise ResourceExhausted(
                f"the upload has more than max_upload_bytes = {self._max_bytes} bytes; cut or compress the video first"
            )
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, chunk)
        try:
            await asyncio.shield(self._writing)
        except OSError as error:
            raise ResourceExhausted(f"the server cannot hold the upload: {error.strerror}") from error
        self.size += len(chunk)

    def _write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Free the file; at once, or as soon as a write that goes on in a thread is over."""
        if self._writing is None or self._writing.done():
            self._file.close()
        else:
            self._writing.add_done_callback(lambda _: self._file.close())


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

    def again(self, frame_index: int) -> ClipAgain:
        """The frames from that one on once more, the very same; it must have been taken before.

        To be entered while this source is.
        """
        assert self._spool is not None
        return ClipAgain(self._spool, self._first_pass, frame_index, self._image_size, self._limits)

    def _frame_of(self, message: messages.Message) -> Frame:
        frame = super()._frame_of(message)
        self._first_pass.add(frame)
        return frame

    def _on_taken(self) -> None:
        self._decoder.write("free")

    def _free(self) -> None:
        if self._spool is not None:
            self._spool.close()
