"""The overlay of a live video: its frames are kept until their results come, then drawn and written."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
import numpy.typing as npt

from masklet._media.capture.capture import Captured
from masklet._media.frames import shown_pixels
from masklet._media.video_writer import VideoWriter
from masklet._protocol.live import VideoPacket
from masklet.drawing import overlay

if TYPE_CHECKING:
    from masklet import FrameResult

_MAX_KEPT_BYTES = 512 * 1024**2
_Picture = npt.NDArray[np.uint8]


class LiveOverlay:
    """Draws results over the frames of a live video. What was written by then can be played at any time.

    One thread keeps parts of the video, another one draws. Parts and results belong together by their capture time.

    Args:
        path: The file, overwritten if it exists.
        drops: Forget the oldest frames when too many wait for their results; else the thread that keeps them waits.

    Attributes:
        not_drawn: Results whose frame was not there, or had another size than the first one.
    """

    def __init__(self, path: Path, *, drops: bool) -> None:
        self.not_drawn = 0
        self._path = path
        self._writer = VideoWriter(path, live=True)
        self._drops = drops
        self._decoder: _Decoder | None = None
        self._kept: OrderedDict[int, _Picture | av.VideoFrame] = OrderedDict()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self._size: tuple[int, ...] = ()

    def __enter__(self) -> LiveOverlay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._writer.finish()
        self._writer.__exit__()
        if not self._writer.count:
            self._path.unlink(missing_ok=True)

    def keep(self, part: Captured) -> None:
        """Keep the frames that a part gives."""
        if isinstance(part.video, VideoPacket):
            if self._decoder is None:
                self._decoder = _Decoder(part.video)
            for nanoseconds, frame in self._decoder.frames(part.video, part.capture_time_nanoseconds):
                self._keep(nanoseconds, frame)
        else:
            self._keep(part.capture_time_nanoseconds, part.video)

    def draw(self, result: FrameResult) -> None:
        """Draw a result over its frame, and write it. Frames before it are forgotten."""
        with self._changed:
            frame: _Picture | av.VideoFrame | None = None
            while self._kept and next(iter(self._kept)) <= result.capture_time_nanoseconds:
                nanoseconds, oldest = self._kept.popitem(last=False)
                self._bytes -= _bytes_of(oldest)
                if nanoseconds == result.capture_time_nanoseconds:
                    frame = oldest
            self._changed.notify_all()
        if frame is None:
            self.not_drawn += 1
            return
        pixels = frame if isinstance(frame, np.ndarray) else shown_pixels(frame)
        self._size = self._size or pixels.shape
        if pixels.shape != self._size:
            self.not_drawn += 1
            return
        self._writer.write(overlay(pixels, result.masks), result.pts_seconds)

    def _keep(self, nanoseconds: int, frame: _Picture | av.VideoFrame) -> None:
        size = _bytes_of(frame)
        with self._changed:
            while self._kept and self._bytes + size > _MAX_KEPT_BYTES and not self._closed:
                if self._drops:
                    self._bytes -= _bytes_of(self._kept.popitem(last=False)[1])
                else:
                    self._changed.wait()
            self._kept[nanoseconds] = frame
            self._bytes += size


class _Decoder:
    """Decodes packets as the server does, so that both see the same frames."""

    def __init__(self, first: VideoPacket) -> None:
        self._context = cast("av.VideoCodecContext", av.CodecContext.create(first.codec, "r"))
        if first.extradata:
            self._context.extradata = first.extradata
        self._context.thread_type = "SLICE"
        self._times: dict[int, int] = {}
        self._count = 0

    def frames(self, packet: VideoPacket, nanoseconds: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames that can be shown by now, each with the capture time of the packet in which it begins."""
        encoded: Any = av.Packet(packet.data)
        encoded.pts = encoded.dts = self._count
        self._times[self._count] = nanoseconds
        self._times.pop(self._count - 256, None)
        self._count += 1
        try:
            decoded = self._context.decode(encoded)
        except av.FFmpegError:
            return
        for frame in decoded:
            if frame.pts in self._times:
                yield self._times[frame.pts], frame


def _bytes_of(frame: _Picture | av.VideoFrame) -> int:
    return frame.nbytes if isinstance(frame, np.ndarray) else frame.width * frame.height * 3 // 2
