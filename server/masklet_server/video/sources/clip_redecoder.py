"""Frames of a clip for the second time, from any of them on.

A second process looks for a key frame in the spooled file. Whether that leads to the frame that is wanted, and to the
same pixels, depends on the container (which may have no index, or a wrong one), on the codec (a stream that is
refreshed bit by bit has no place to enter it) and on the animation formats' own rules. So nothing of it is trusted: of
the first time a time stamp and a checksum is kept for each frame, and where a frame does not fit them the file is
decoded from its start.
"""

from __future__ import annotations

import os
from array import array
from typing import Any, Protocol

from masklet.errors import DataLoss, MaskletError
from masklet_server.video.frame import Frame
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.sandboxed import SandboxedSource

# Frames before the one that is wanted at which a key frame is looked for: containers count in order of decoding, from
# which that of presentation departs by 16 frames at most (H.264 and HEVC hold no more back).
_MARGIN = 16


class SpooledFile(Protocol):
    """The part of a `Spool` that is read."""

    size: int

    def open_for_reading(self) -> int:
        """A read-only descriptor, to be closed by the caller."""


class FirstPass:
    """What the frames of a clip were when they were decoded first: 12 bytes for each."""

    def __init__(self) -> None:
        self._pts = array("q")
        self._checksums = array("I")

    def __len__(self) -> int:
        return len(self._pts)

    def add(self, frame: Frame) -> None:
        """The next frame was decoded."""
        self._pts.append(frame.pts)
        self._checksums.append(frame.checksum)

    def pts(self, frame_index: int) -> int:
        """A frame's time stamp."""
        return self._pts[frame_index]

    def is_same(self, frame: Frame) -> bool:
        """Whether a frame is the one that had its index."""
        index = frame.index
        return index < len(self) and (self._pts[index], self._checksums[index]) == (frame.pts, frame.checksum)


class ClipRedecoder:
    """The frames of a spooled clip from one of them on; an asynchronous context manager, as sources are.

    Args:
        spool: The file, of which what has arrived is read.
        first_pass: What the frames were.
        frame_index: The first frame wanted.
        image_size: Side S of the frames.
        limits: What decoding may cost.
    """

    def __init__(
        self, spool: SpooledFile, first_pass: FirstPass, frame_index: int, image_size: int, limits: VideoLimits
    ) -> None:
        self._spool = spool
        self._first_pass = first_pass
        self._next = frame_index
        self._image_size = image_size
        self._limits = limits
        self._seeks = frame_index > _MARGIN
        self._pass: _Pass | None = None

    @property
    def pid(self) -> int:
        """Id of the decoding process."""
        assert self._pass is not None
        return self._pass.pid

    @property
    def is_from_start(self) -> bool:
        """Whether the file is decoded from its start."""
        return not self._seeks

    async def __aenter__(self) -> ClipRedecoder:
        """Start the decoding process."""
        await self._begin()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Kill the process and free everything it used."""
        if self._pass is not None:
            await self._pass.__aexit__(*exc_info)

    async def next_frame(self) -> Frame:
        """Wait for the next frame.

        Raises:
            DataLoss: It can't be decoded to the same pixels again, which happens with damaged files.
            MaskletError: Decoding costs more than the limits allow.
        """
        if self._seeks:
            frame = await self._sought()
            if frame is not None:
                return self._found(frame)
            await self.__aexit__()
            self._seeks = False
            await self._begin()
        assert self._pass is not None
        frame = await self._pass.next_frame()
        if frame is None or not self._first_pass.is_same(frame):
            raise DataLoss(f"frame {self._next} of the video is not the same when it is decoded again: it is damaged")
        return self._found(frame)

    async def _sought(self) -> Frame | None:
        """The next frame, or None where the search has led elsewhere."""
        assert self._pass is not None
        try:
            frame = await self._pass.next_frame()
        except MaskletError:
            return None  # from the start it may do; if not, that error counts
        return frame if frame is not None and self._first_pass.is_same(frame) else None

    def _found(self, frame: Frame) -> Frame:
        self._next += 1
        return frame

    async def _begin(self) -> None:
        again: dict[str, Any] = {"size": self._spool.size, "seek": None, "skip": self._next}
        if self._seeks:
            again["seek"] = self._first_pass.pts(self._next - _MARGIN)
            again["since"] = self._first_pass.pts(self._next)
        self._pass = _Pass(self._spool, self._next, again, self._image_size, self._limits)
        await self._pass.__aenter__()


class _Pass(SandboxedSource):
    """One attempt."""

    def __init__(
        self, spool: SpooledFile, frame_index: int, again: dict[str, Any], image_size: int, limits: VideoLimits
    ) -> None:
        super().__init__(image_size, limits)
        self._spool = spool
        self._again = again
        self._taken = frame_index

    async def _start(self) -> DecoderProcess:
        reading = self._spool.open_for_reading()
        try:
            return await DecoderProcess.start(
                "clip",
                image_size=self._image_size,
                slots=self._frames_ahead,
                limits=self._limits,
                spool_fd=reading,
                again=self._again,
            )
        finally:
            os.close(reading)

    def _on_taken(self) -> None:
        self._decoder.write("free")
