"""Decodes a clip for the second time, from any frame on, and makes sure that its frames are the same.

A second process looks for a key frame in the uploaded file. Whether that leads to the wanted frame, and to the same
pixels, depends on the container, which may have no index or a wrong one; on the codec, because a stream that is
refreshed bit by bit has no place to enter it; and on the rules of animation formats. So the result is never trusted:
when a frame is decoded first, its time stamp and a checksum are recorded. If a frame does not match its record, the
file is decoded from its start.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass

from masklet.errors import DataLoss, MaskletError
from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.video.frame import Frame
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import Redecode, Seek, Setup, SlotFree
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.sandboxed import SandboxedSource
from masklet_server.video.sources.spool import Spool

# A key frame is looked for so many frames before the wanted one. Containers count in order of decoding, which differs
# from the order of presentation by 16 frames at most (decoders of H.264 and HEVC delay frames by no more).
_MARGIN = 16


class FrameRecords:
    """What the frames of a clip were when they were decoded first: 12 bytes for each."""

    def __init__(self) -> None:
        self._pts = array("q")
        self._checksums = array("I")

    def __len__(self) -> int:
        return len(self._pts)

    def add(self, frame: Frame) -> None:
        """Record time stamp and checksum of the next frame."""
        self._pts.append(frame.pts)
        self._checksums.append(frame.checksum)

    def pts(self, frame_index: int) -> int:
        """The recorded time stamp of a frame."""
        return self._pts[frame_index]

    def is_same(self, frame: Frame) -> bool:
        """Whether a frame matches the record of its index."""
        index = frame.index
        return index < len(self) and (self._pts[index], self._checksums[index]) == (frame.pts, frame.checksum)


@dataclass(frozen=True, eq=False)
class SpooledClip:
    """An uploaded clip of which some frames have been decoded.

    Attributes:
        spool: The file. Only what has arrived is read.
        records: What the frames were when they were decoded first.
        image_size: Side S of the frames.
        limits: What decoding may cost.
        share: What the client may have of decoders' memory.
    """

    spool: Spool
    records: FrameRecords
    image_size: int
    limits: VideoLimits
    share: ClientShare = UNBOUNDED


class ClipRedecoder:
    """Gives the frames of a clip from one of them on; an asynchronous context manager, as sources are.

    Args:
        clip: The clip.
        frame_index: The first frame that is wanted.
    """

    def __init__(self, clip: SpooledClip, frame_index: int) -> None:
        self._clip = clip
        self._next = frame_index
        self._seeks = frame_index > _MARGIN
        self._source: _RedecodingSource | None = None

    @property
    def pid(self) -> int:
        """Id of the decoding process."""
        assert self._source is not None
        return self._source.pid

    @property
    def is_from_start(self) -> bool:
        """Whether the file is decoded from its start."""
        return not self._seeks

    async def __aenter__(self) -> ClipRedecoder:
        """Start the second decoding process."""
        await self._begin()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Kill the process and free everything it used."""
        if self._source is not None:
            await self._source.__aexit__(*exc_info)

    async def next_frame(self) -> Frame:
        """Wait for the next frame.

        Raises:
            DataLoss: The frame is not the same when it is decoded again, which happens with damaged files.
            MaskletError: Decoding costs more than the limits allow.
        """
        if self._seeks:
            frame = await self._sought_frame()
            if frame is not None:
                return self._found(frame)
            await self.__aexit__()
            self._seeks = False
            await self._begin()
        assert self._source is not None
        frame = await self._source.next_frame()
        if frame is None or not self._clip.records.is_same(frame):
            raise DataLoss(
                f"frame {self._next} of the video is not the same when it is decoded again: the video is damaged"
            )
        return self._found(frame)

    async def _sought_frame(self) -> Frame | None:
        """The next frame, or None if the key frame has not led to it."""
        assert self._source is not None
        try:
            frame = await self._source.next_frame()
        except MaskletError:
            return None  # decoding from the start may succeed; if not, its error is raised
        return frame if frame is not None and self._clip.records.is_same(frame) else None

    def _found(self, frame: Frame) -> Frame:
        self._next += 1
        return frame

    async def _begin(self) -> None:
        size, records = self._clip.spool.size, self._clip.records
        if self._seeks:
            seek = Seek(records.pts(self._next - _MARGIN), since=records.pts(self._next))
            redecode = Redecode(size, seek=seek)
        else:
            redecode = Redecode(size, skip=self._next)
        self._source = _RedecodingSource(self._clip, self._next, redecode)
        await self._source.__aenter__()


class _RedecodingSource(SandboxedSource):
    """Gives the frames of one attempt, from a key frame or from the start."""

    def __init__(self, clip: SpooledClip, frame_index: int, redecode: Redecode) -> None:
        super().__init__(clip.image_size, clip.limits, share=clip.share)
        self._spool = clip.spool
        self._redecode = redecode
        self._taken = frame_index

    async def _start(self) -> DecoderProcess:
        upload_fd = self._spool.open_for_reading()
        try:
            setup = Setup.for_frames("clip", self._image_size, self._frames_ahead, self._limits, self._redecode)
            return await DecoderProcess.start(setup, upload_fd)
        finally:
            os.close(upload_fd)

    def _on_taken(self) -> None:
        self._decoder.write(SlotFree())
