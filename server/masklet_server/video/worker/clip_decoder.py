"""Frames of a video file, by PyAV. Runs in the decoding process.

These rules are kept here:

- The video stream is the one that FFmpeg calls the best, except for cover pictures. Audio, subtitles and data are not
  read.
- Frames come in order of presentation, with their own time stamps. Where a container has no time stamps, they are
  made from the frame rate; a time stamp that does not grow is set one unit after the one before.
- Frames are shown as the display matrix says, and with square pixels: a sample aspect ratio is ignored, as SAM 2's
  loaders and annotation tools do.
- Damaged packets are skipped as long as frames follow. If a file was cut off, or its container is damaged, DataLoss is
  raised after the last frame that can be decoded, so that a part is not taken for the whole video.
- When a clip is decoded a second time, from one frame on, nothing guarantees that a key frame leads to that very
  frame. The server compares every frame with what it was the first time (`sources.clip_redecoder`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

# PyAV imports these when it first meets such a stream; the decoding process can import nothing then.
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
import av.video.stream
from av.stream import Disposition

from masklet_server.video.formats import CODECS, CONTAINERS, FOREIGN_DECODERS
from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.declared_length import declared_length
from masklet_server.video.worker.pixels import FrameResizer, check_size
from masklet_server.video.worker.refusal import Refusal
from masklet_server.video.worker.shown_frame import ShownFrame, max_coded_pixels, show

_FALLBACK_RATE = Fraction(30)
# Results have time stamps of 64 bits, in nanoseconds.
_MAX_SECONDS = (2**63 - 1) // 1_000_000_000


class Clip:
    """An open video file whose header is within the limits.

    Attributes:
        time_base: Seconds in one unit of time stamps.

    Args:
        file: The video file.
        limits: What decoding may cost.
        image_size: Side of the frames that come out.
        threads: Threads that decode.
        seeks: `seek` will be called, for which the container's index is read.

    Raises:
        Refusal: The file is no video, is not allowed, or is beyond the limits.
    """

    def __init__(
        self, file: ArrivingFile, limits: VideoLimits, *, image_size: int, threads: int, seeks: bool = False
    ) -> None:
        self._file = file
        self._resizer = FrameResizer(image_size)
        self._limits = limits
        if not file.wait_for_start():
            raise Refusal("InvalidArgument", "is empty: no byte of video was sent before end_of_video", "video_chunk")
        self._container = _open(file, limits, seeks=seeks)
        self._stream = _best_stream(self._container)
        self._check_header()
        self._configure(threads)
        self._damage = ""
        self.time_base = self._stream.time_base or Fraction(1, 1000)

    def _check_header(self) -> None:
        """Compare with the limits what the header says, before any frame is decoded."""
        context, limits = self._stream.codec_context, self._limits
        check_size(
            context.height,
            context.width,
            limits,
            what="the video",
        )
        self._check_duration(self._duration_seconds())
        self._check_count(self._stream.frames)

    def _check_duration(self, seconds: float) -> None:
        if 0 < self._limits.max_duration_seconds < seconds:
            raise Refusal(
                "ResourceExhausted",
                f"the video lasts {seconds:.3f} s; max_duration_seconds is "
                f"{self._limits.max_duration_seconds:g}. Send it in parts",
            )

    def _check_count(self, count: int) -> None:
        if 0 < self._limits.max_frames < count:
            raise Refusal(
                "ResourceExhausted",
                f"the video has {count} frames or more; max_frames is {self._limits.max_frames}. Send it in parts",
            )

    def _configure(self, threads: int) -> None:
        """Set what PyAV ignores among the options of `av.open`, except while it probes."""
        context = self._stream.codec_context
        context.options = {"max_pixels": str(max_coded_pixels(self._limits))}
        context.thread_count = threads
        context.thread_type = "AUTO"

    def _duration_seconds(self) -> float:
        if self._is_fragmented():
            return 0.0  # FFmpeg only knows the length of the fragments that it has seen
        if self._stream.duration is not None and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else 0.0

    def _is_fragmented(self) -> bool:
        return "mp4" in self._container.format.name and self._stream.frames == 0

    def _rate(self) -> Fraction:
        return self._stream.average_rate or self._stream.guessed_rate or Fraction(0)

    def info(self, first: ShownFrame) -> VideoInfo:
        """What the header says of the video, and the size and the rotation of its first frame."""
        return VideoInfo(
            height=first.height,
            width=first.width,
            frame_rate=max(0.0, float(self._rate())),
            duration_seconds=max(0.0, self._duration_seconds()),
            frame_count=max(0, self._stream.frames),
            container=self._container.format.name,
            codec=self._stream.codec_context.codec.canonical_name,
            rotation_degrees=first.rotation_degrees,
        )

    def seek(self, pts: int) -> None:
        """Go to a key frame before that time, in units of `time_base`, if the container knows one.

        Raises:
            Refusal: The container cannot be searched.
        """
        try:
            self._container.seek(pts, stream=self._stream)
        except av.FFmpegError as error:
            raise Refusal("DataLoss", f"the container cannot be searched: {error.strerror}") from error

    def frames(self, *, skip: int = 0, since: int | None = None) -> Iterator[ShownFrame]:
        """Every frame in order.

        Args:
            skip: Leave out so many frames at the start.
            since: Leave out frames before that time, in units of `time_base`.

        Raises:
            Refusal: The video is beyond the limits, changes its size, or was cut off.
        """
        count, pixels, size = 0, 0, (0, 0)
        first_pts = 0
        for position, (pts, frame) in enumerate(self._timed()):
            if position < skip or (since is not None and pts < since):
                continue
            shown = show(pts, frame, self._resizer)
            if count == 0:
                first_pts, size = pts, (shown.height, shown.width)
            self._check_frame(count, frame, size, (shown.height, shown.width))
            self._check_time(count, pts * self.time_base)
            self._check_duration(float((pts - first_pts) * self.time_base))
            pixels += frame.width * frame.height
            if 0 < self._limits.max_decoded_pixels < pixels:
                raise Refusal(
                    "ResourceExhausted",
                    f"the video's frames have {pixels} pixels or more in all; max_decoded_pixels is "
                    f"{self._limits.max_decoded_pixels}. Send it in parts or scale it down first",
                )
            count += 1
            yield shown
        self._check_end(count)

    def _check_frame(self, index: int, frame: av.VideoFrame, first: tuple[int, int], size: tuple[int, int]) -> None:
        self._check_count(index + 1)
        check_size(
            frame.height,
            frame.width,
            self._limits,
            what=f"frame {index}",
        )
        if size != first:
            raise Refusal(
                "InvalidArgument",
                f"frame {index} is {size[1]}x{size[0]} pixels, the frames before it {first[1]}x{first[0]}; "
                "a video must keep its size: split it there and send each part in its own stream",
                "video_chunk",
            )

    def _check_time(self, index: int, seconds: Fraction) -> None:
        if abs(seconds) > _MAX_SECONDS:
            raise Refusal(
                "DataLoss",
                f"frame {index} has the time stamp {float(seconds):.3g} s; results can have at most {_MAX_SECONDS} s",
            )

    def _check_end(self, count: int) -> None:
        if not self._damage:
            self._damage = self._cut()
        if count == 0:
            raise Refusal("DataLoss", f"the video has no frame that can be decoded{_because(self._damage)}")
        if self._damage:
            raise Refusal(
                "DataLoss",
                f"the video breaks off after {count} frames{_because(self._damage)}; send the whole file",
            )

    def _cut(self) -> str:
        """What is missing at the end of the file, by what the container says; empty if nothing is."""
        size = self._file.arrived
        length = declared_length(self._container.format.name, self._file.peek, size)
        return f"it has {size} bytes where its container says {length}" if size < length else ""

    def _timed(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """All frames, with time stamps that grow."""
        step = max(1, math.floor(1 / ((self._rate() or _FALLBACK_RATE) * self.time_base)))
        last: int | None = None
        for frame in self._decoded():
            if frame.pts is not None:
                pts = frame.pts if last is None else max(frame.pts, last + 1)
            else:
                pts = 0 if last is None else last + step
            last = pts
            yield pts, frame

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames as FFmpeg makes them; sets `_damage` if the container is damaged."""
        for packet in self._packets():
            try:
                frames = self._stream.decode(packet)
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                continue  # This packet is damaged; from the next key frame on, frames are right again.
            yield from frames

    def _packets(self) -> Iterator[av.Packet[Any] | None]:
        """Packets of the container. If it is damaged, None follows the last one, to drain the decoder."""
        packets = self._container.demux(self._stream)
        cut = False
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self._damage = f"the container is damaged: {error.strerror}"
                packet = None
            if packet is None:
                break
            if packet.size:
                cut = packet.is_corrupt
            yield packet
        if self._damage:
            yield None
        elif cut:
            self._damage = "its last packet is not whole"


def _because(damage: str) -> str:
    return f": {damage}" if damage else ""


def _open(file: ArrivingFile, limits: VideoLimits, *, seeks: bool) -> av.container.InputContainer:
    options = {
        "format_whitelist": ",".join(CONTAINERS),
        # No protocol has this name, so that FFmpeg reads nothing but the file.
        "protocol_whitelist": "none",
        "codec_whitelist": ",".join(CODECS + FOREIGN_DECODERS),
        "max_pixels": str(max_coded_pixels(limits)),
        "threads": "1",
    }
    if not seeks:
        # Without this option FFmpeg looks for further indices up to the end of an MP4 before it gives the first frame.
        options["fflags"] = "+ignidx"
    try:
        return av.open(file, "r", options=options, metadata_errors="replace")
    except av.ArgumentError as error:
        # FFmpeg raises this for a format that it knows and that is not on the list.
        raise Refusal(
            "InvalidArgument",
            f"is a playlist, or in a container that is not allowed; convert it to one of {', '.join(CONTAINERS)}",
            "video_chunk",
        ) from error
    except av.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        raise Refusal(
            "DataLoss",
            f"this is no video in one of the containers {', '.join(CONTAINERS)}, or it was cut off: {error.strerror}",
        ) from error


def _best_stream(container: av.container.InputContainer) -> av.VideoStream:
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not videos:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise Refusal("DataLoss", f"the file has no video stream (streams found: {found})")
    best = container.streams.best("video")
    stream = best if best in videos else videos[0]
    context = stream.codec_context
    name = context.codec.canonical_name if context is not None else "unknown"
    if name not in CODECS:
        raise Refusal(
            "InvalidArgument",
            f"has the codec {name}, which is not allowed; convert it to one of {', '.join(CODECS)}",
            "video_chunk",
        )
    return stream
