"""Frames of a video file by their number, the same ones as the server counts.

The server numbers frames in the order in which `masklet_media.clip_reader` gives them. That needs no decoding where
every packet gives one frame and tells its time, as in nearly all files: then the packets' times, sorted, are the
frames' times, and a frame is reached from the key frame before it. Where that does not hold, or a packet cannot be
decoded, the frames are counted by decoding the file from its start.
"""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, Any

import av
from PIL import Image

from masklet._media.frames import shown_pixels
from masklet.errors import DataLoss
from masklet_media.clip_reader import ClipReader, NoVideo, best_stream
from masklet_studio.frames.facts import VideoFacts

MAX_FRAME_PIXELS = 1 << 26
"""Pixels of the largest frame that is decoded: 8192 x 8192."""
_KEPT_BYTES = 96 * 1024**2  # of decoded frames, so that steps back decode nothing
_CLOCK_MAY_RESTART = 512  # FFmpeg's AVFMT_TS_DISCONT
_FALLBACK_RATE = Fraction(30)
_TOLD_WRONG = 1.25  # a header's rate that is so many times the true one, or its inverse, is not believed
_WITHOUT_TIMES = {"avi", "h264", "hevc", "obu", "ivf", "image2", "gif", "apng"}  # or with times that decoding changes


class ClipFrames:
    """A video file whose frames are given by their number.

    Attributes:
        facts: What is known of the video.

    Args:
        file: The file, which belongs to this object from now on.

    Raises:
        DataLoss: It cannot be decoded.
        OSError: It cannot be read.
    """

    facts: VideoFacts

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._kept: OrderedDict[int, av.VideoFrame] = OrderedDict()
        self._kept_bytes = 0
        self._container: av.container.InputContainer | None = None
        self._frames: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._next = 0
        self._stamps: list[int] = []  # by frame; empty where frames are counted by decoding
        self._keys: list[int] = []  # numbers of key frames
        try:
            if not self._read_packets():
                self._count_by_decoding()
        except NoVideo as error:
            raise DataLoss(str(error)) from error
        except av.FFmpegError as error:
            raise DataLoss(f"the video cannot be decoded: {error.strerror}") from error

    def picture(self, index: int, data: bytes = b"") -> Image.Image:
        """The frame as shown, in mode RGB; `data` means nothing here.

        Raises:
            DataLoss: It cannot be decoded.
        """
        frame = self._kept.get(index)
        if frame is None:
            frame = self._reach(index)
        return Image.fromarray(shown_pixels(frame))

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._frames = iter(())
        if self._container is not None:
            self._container.close()
        self._container = None
        self._file.close()

    # Counting

    def _read_packets(self) -> bool:
        """Number the frames by their packets; False where the packets do not tell."""
        container, stream = self._open()
        clean = not container.format.flags & _CLOCK_MAY_RESTART
        clean = clean and not _WITHOUT_TIMES & set(container.format.name.split(","))
        clean = clean and stream.codec_context.codec.name != "vp8"  # whose packets may have no frame to show
        if not clean:
            return False
        found: list[tuple[int, bool]] = []
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.pts is None or packet.is_corrupt or packet.is_discard:
                return False
            found.append((packet.pts, packet.is_keyframe))
        if not found or not found[0][1] or len({stamp for stamp, _ in found}) < len(found):
            return False
        if min(found)[0] < found[0][0]:
            return False  # frames that are shown before the first key frame may not be decodable
        found.sort()
        self._stamps = [stamp for stamp, _ in found]
        self._keys = [index for index, (_, is_key) in enumerate(found) if is_key]
        base = stream.time_base or Fraction(1, 1000)
        try:
            first = self._decode_to(0)
        except (_NotAsNumbered, av.FFmpegError):
            return False
        self.facts = self._facts(first, stream, tuple(float(stamp * base) for stamp in self._stamps))
        return True

    def _count_by_decoding(self) -> None:
        """Number the frames by decoding all of them, which takes as long as it takes."""
        self._stamps, self._keys = [], []
        self._forget()
        container, _ = self._open()
        reader = ClipReader(container, threads=os.cpu_count() or 1, options=_limits())
        times: list[float] = []
        first: av.VideoFrame | None = None
        for frame in reader.frames():
            first = first or frame.picture
            times.append(float(frame.pts * reader.time_base))
        if first is None:
            raise DataLoss(f"the video has no frame that can be decoded{': ' if reader.damage else ''}{reader.damage}")
        self.facts = self._facts(first, reader.stream, tuple(times), reader.damage)
        self._restart()

    @staticmethod
    def _facts(first: av.VideoFrame, stream: av.VideoStream, times: tuple[float, ...], damage: str = "") -> VideoFacts:
        height, width = shown_pixels(first).shape[:2]
        return VideoFacts(width, height, _rate(stream, times), times, damage)

    # Reaching a frame

    def _reach(self, index: int) -> av.VideoFrame:
        try:
            return self._decode_to(index)
        except (_NotAsNumbered, av.FFmpegError) as error:
            if not self._stamps:
                raise DataLoss(f"frame {index} cannot be decoded: {error}") from error
        self._count_by_decoding()
        if index >= self.facts.frame_count:
            raise DataLoss(
                f"the video is damaged: {self.facts.frame_count} frames can be decoded, so there is no frame {index}"
            )
        return self._decode_to(index)

    def _decode_to(self, index: int) -> av.VideoFrame:
        if not self._stamps:
            if index < self._next:
                self._restart()
        else:
            key = self._keys[bisect.bisect_right(self._keys, index) - 1]
            if not key <= self._next <= index or self._container is None:
                self._seek(key)
        for found, frame in self._frames:
            self._keep(found, frame)
            self._next = found + 1
            if found == index:
                return frame
            if found > index:
                break
        raise _NotAsNumbered(f"no frame {index} came out of the decoder")

    def _restart(self) -> None:
        """Decode from the start, counting."""
        container, _ = self._open()
        reader = ClipReader(container, threads=os.cpu_count() or 1, options=_limits())
        self._frames = ((index, frame.picture) for index, frame in enumerate(reader.frames()))
        self._next = 0

    def _seek(self, key: int) -> None:
        """Decode from a key frame on."""
        if self._container is None:
            self._open()
        container = self._container
        assert container is not None
        stream = best_stream(container)
        container.seek(self._stamps[key], stream=stream, backward=True)
        self._frames = self._from_key(container, stream, key)
        self._next = key

    def _from_key(
        self, container: av.container.InputContainer, stream: av.VideoStream, key: int
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        expected = key
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts < self._stamps[key]:
                continue  # frames before the key frame may need others that were not read
            if expected >= len(self._stamps) or frame.pts != self._stamps[expected]:
                raise _NotAsNumbered(f"a frame at {frame.pts} came where frame {expected} was due")
            yield expected, frame
            expected += 1

    def _open(self) -> tuple[av.container.InputContainer, av.VideoStream]:
        if self._container is not None:
            self._container.close()
            self._file.seek(0)
        # No protocol has this name: nothing but the file itself is read.
        options = {"protocol_whitelist": "none"}
        self._container = av.open(self._file, "r", options=options, metadata_errors="replace")
        stream = best_stream(self._container)
        context: Any = stream.codec_context
        context.options = _limits()
        context.thread_count = os.cpu_count() or 1
        context.thread_type = "SLICE"
        return self._container, stream

    # Frames that were decoded

    def _keep(self, index: int, frame: av.VideoFrame) -> None:
        self._kept[index] = frame
        self._kept_bytes += _bytes(frame)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= _bytes(self._kept.popitem(last=False)[1])

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0


class _NotAsNumbered(Exception):  # noqa: N818 - the packets have told something else, and frames are counted then
    """The decoder gives other frames than the packets promised."""


def _rate(stream: av.VideoStream, times: tuple[float, ...]) -> float:
    """The average frames per second: as the header says, where the times do not say otherwise."""
    told = float(stream.average_rate or stream.guessed_rate or _FALLBACK_RATE)
    seconds = times[-1] - times[0]
    if seconds <= 0:
        return told
    true = (len(times) - 1) / seconds
    return told if 1 / _TOLD_WRONG < told / true < _TOLD_WRONG else true


def _limits() -> dict[str, str]:
    return {"max_pixels": str(MAX_FRAME_PIXELS)}


def _bytes(frame: av.VideoFrame) -> int:
    return sum(plane.buffer_size for plane in frame.planes)
