"""Frames of an uploaded video file, within the limits and as shown. Runs in the decoding process.

`masklet_media` decodes; clients read their files with it, too. Further rules are kept here:

- Frames are shown as the display matrix says, and with square pixels: a sample aspect ratio is ignored, as SAM 2's
  loaders and annotation tools do.
- If a file was cut off, or its container is damaged, DataLoss is raised after the last frame that can be decoded, so
  that a part is not taken for the whole video.
- When a clip is decoded a second time, from one frame on, nothing guarantees that a key frame leads to that very
  frame. The server compares every frame with what it was the first time (`sources.clip_redecoder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.codec.hwaccel import HWAccel

from masklet_media.clip_reader import ClipReader, NoVideo
from masklet_server.video.formats import CODECS, CONTAINERS, FOREIGN_DECODERS, convert_to
from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.clip_limits import ClipLimits
from masklet_server.video.worker.hardware import with_hardware
from masklet_server.video.worker.pixels import FrameResizer
from masklet_server.video.worker.refusal import Refusal
from masklet_server.video.worker.shown_frame import ShownFrame, max_coded_pixels, show


class Clip:
    """An open video file whose header is within the limits.

    Attributes:
        time_base: Seconds in one unit of time stamps.
        undecoded: After the last frame: the times of frames behind it that could not be decoded.

    Args:
        file: The video file, of which a byte has arrived.
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
        self._resizer = FrameResizer(image_size, limits.scaling)
        self._limits = ClipLimits(limits)
        self._container = _open(file, limits, seeks=seeks)
        try:
            self._reader = ClipReader(
                self._container, threads=threads, options={"max_pixels": str(max_coded_pixels(limits))}
            )
        except NoVideo as error:
            raise Refusal("DataLoss", str(error)) from error
        self._stream = self._reader.stream
        self._check_header()
        self.time_base: Fraction = self._reader.time_base
        self.undecoded: tuple[int, ...] = ()

    def _check_header(self) -> None:
        """Compare with the limits what the header says, before any frame is decoded."""
        context = self._stream.codec_context
        name = context.codec.canonical_name if context is not None else "unknown"
        if name not in CODECS:
            raise Refusal(
                "InvalidArgument",
                f"has the codec {name}, which is not allowed; {convert_to(CODECS)}",
                "video_chunk",
            )
        self._limits.check_header(
            context.height, context.width, count=self._stream.frames, seconds=self._duration_seconds()
        )

    def _duration_seconds(self) -> float:
        if self._is_fragmented():
            return 0.0  # FFmpeg only knows the length of the fragments that it has seen
        if self._stream.duration is not None and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else 0.0

    def _is_fragmented(self) -> bool:
        return "mp4" in self._container.format.name and self._stream.frames == 0

    def info(self, first: ShownFrame) -> VideoInfo:
        """What the header says of the video, and the size and the rotation of its first frame."""
        return VideoInfo(
            height=first.height,
            width=first.width,
            frame_rate=max(0.0, float(self._reader.rate)),
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
        for position, clip_frame in enumerate(self._reader.frames()):
            pts, frame = clip_frame.pts, clip_frame.picture
            if position < skip or (since is not None and pts < since):
                continue
            self._limits.check_undecoded(len(clip_frame.undecoded))
            shown = show(pts, frame, self._resizer, undecoded=clip_frame.undecoded)
            coded = (frame.height, frame.width)
            self._limits.check_frame(coded, shown=(shown.height, shown.width), seconds=pts * self.time_base)
            yield shown
        self._limits.check_undecoded(len(self._reader.undecoded))
        self.undecoded = self._reader.undecoded
        self._limits.check_end(self._reader.check_end(self._file.arrived, self._file.peek))


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

    def opened(accelerated: HWAccel | None) -> av.container.InputContainer:
        return av.open(file, "r", options=options, metadata_errors="replace", hwaccel=accelerated)

    try:
        return with_hardware(limits.hwaccel == "cuda", opened, again=lambda: file.seek(0))
    except av.ArgumentError as error:
        # FFmpeg raises this for a format that it knows and that is not on the list.
        raise Refusal(
            "InvalidArgument",
            f"is a playlist, or in a container that is not allowed; {convert_to(CONTAINERS)}",
            "video_chunk",
        ) from error
    except av.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        raise Refusal(
            "DataLoss",
            f"this is no video in one of the containers {', '.join(CONTAINERS)}, or it was cut off: {error.strerror}",
        ) from error
