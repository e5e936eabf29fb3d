"""Draws results over the video they belong to, as a new video."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, cast

import av
import av.container
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace

from masklet._drawing import overlay
from masklet._files import replacing
from masklet._pictures import load_rgb
from masklet._results import FrameResult
from masklet._video import SourceUrl, VideoSource, picture_files, video_path
from masklet.errors import DataLoss, InvalidArgument

SUFFIXES = (".mp4", ".mov", ".mkv")

_TIME_BASE = Fraction(1, 90_000)
_FALLBACK_STEP = round(1 / 30 / _TIME_BASE)
_BT709 = 1  # FFmpeg's number for both the primaries and the transfer curve
# Quality is near what the eye can tell; drawing should cost more time than encoding. Without B-frames packets come in
# order of presentation, and the last one's duration is the last frame's.
_X264 = {"preset": "veryfast", "crf": "18", "bf": "0"}


def write_overlay_video(
    video: VideoSource,
    results: Iterable[FrameResult],
    out_path: str | os.PathLike[str],
    *,
    alpha: float = 0.4,
    outline: bool = True,
) -> int:
    """Draw each frame's masks over it and write the frames as H.264, with the video's own timing and without sound.

    One frame is held at a time, so `results` may be `Client.track`'s answer itself and the video of any length. The
    file appears when it is whole. Sides of an odd length grow by one pixel: H.264, as players know it, wants even ones.

    Args:
        video: As it was given to `Client.track`; an iterable of arrays must be one that can be iterated over again.
        results: In order of frames; the new video ends with them.
        out_path: Ends in .mp4, .mov or .mkv; an existing file is replaced.
        alpha: Strength of the tint, 0 to 1.
        outline: Draw the outlines too.

    Returns:
        The number of frames written; with 0 there is no file.

    Raises:
        InvalidArgument: The suffix is another, or the results are not this video's.
        DataLoss: The video cannot be decoded, or ends before the results do.
        OSError: A file cannot be read or written.
    """
    path = Path(out_path)
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidArgument.of("out_path", f"{path.name!r} must end in {', '.join(SUFFIXES)}")
    pending = iter(results)
    # Before anything is opened: what the server refuses is not decoded here either.
    first = next(pending, None)
    if first is None:
        return 0
    with replacing(path) as partial, _Writer(partial) as writer:
        for result, pixels in _matched(_chain(first, pending), shown_frames(video)):
            writer.write(overlay(pixels, result.masks, alpha=alpha, outline=outline), result.pts_seconds)
        writer.finish()
    return writer.count


def shown_frames(video: VideoSource) -> Iterator[npt.NDArray[np.uint8]]:
    """Every frame of a video as ``uint8[H, W, 3]`` RGB, as shown (rotation applied), decoded as it is asked for.

    Raises:
        InvalidArgument: It is no video.
        DataLoss: It cannot be decoded.
        OSError: A file cannot be read.
    """
    if isinstance(video, SourceUrl):
        raise InvalidArgument.of("video", f"{video.url} was read by the server alone; download it to draw over it")
    if isinstance(video, (str, os.PathLike)):
        path = video_path(video)
        if path.is_dir():
            yield from map(load_rgb, picture_files(path))
        else:
            with path.open("rb") as file:
                yield from _decoded(file)
    elif isinstance(video, (bytes, bytearray, memoryview)):
        yield from _decoded(io.BytesIO(video))
    elif hasattr(video, "read"):
        opened = cast("IO[bytes]", video)
        opened.seek(0)
        yield from _decoded(opened)
    else:
        yield from map(load_rgb, video)


def _chain(first: FrameResult, rest: Iterator[FrameResult]) -> Iterator[FrameResult]:
    yield first
    yield from rest


def _matched(
    results: Iterable[FrameResult], frames: Iterator[npt.NDArray[np.uint8]]
) -> Iterator[tuple[FrameResult, npt.NDArray[np.uint8]]]:
    numbered = enumerate(frames)
    for result in results:
        for index, pixels in numbered:
            if index == result.frame_index:
                yield result, pixels
                break
        else:
            raise DataLoss(f"the video has no frame {result.frame_index} to draw on; is it the one that was tracked?")


def _decoded(file: IO[bytes]) -> Iterator[npt.NDArray[np.uint8]]:
    try:
        # No protocol has this name: nothing but the file itself is read.
        with av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace") as container:
            if not container.streams.video:
                raise DataLoss("the file holds no video stream")
            stream = container.streams.best("video") or container.streams.video[0]
            stream.codec_context.thread_type = "AUTO"
            for packet in container.demux(stream):
                for frame in _frames(packet):
                    yield _shown(frame)
    except av.FFmpegError as error:
        raise DataLoss(f"the video cannot be decoded: {error.strerror}") from error


def _frames(packet: Any) -> list[av.VideoFrame]:
    try:
        frames: list[av.VideoFrame] = packet.decode()
    except av.FFmpegError:
        return []  # a damaged packet: the server skips it too, so that the frames after it keep their numbers
    return frames


def _shown(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    pixels = cast("npt.NDArray[np.uint8]", frame.to_ndarray(format="rgb24"))
    # Not frame.side_data: frame and side data would hold each other, and megabytes wait for the garbage collector.
    matrix = cast("Any", SideDataContainer)(frame).get(SideDataType.DISPLAYMATRIX)
    return pixels if matrix is None else turned(pixels, bytes(matrix))


def turned(pixels: npt.NDArray[np.uint8], display_matrix: bytes) -> npt.NDArray[np.uint8]:
    """Pixels as a display matrix (nine int32; FFmpeg's libavutil/display.h) says to show them, by right angles.

    The matrix [a b; c d] puts a pixel at x' = a x + c y, y' = b x + d y.
    """
    a, b, _, c, d = struct.unpack("=9i", display_matrix)[:5]
    if a == d == 0:
        pixels, flip_x, flip_y = pixels.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


class _Writer:
    """An H.264 file that takes one frame at a time; its size is the first frame's."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._container = av.open(str(path), "w")
        self._stream: av.VideoStream | None = None
        self._start_seconds = 0.0
        self._pts = 0
        self._step = _FALLBACK_STEP

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._container.close()

    def write(self, picture: npt.NDArray[np.uint8], pts_seconds: float) -> None:
        """Append a picture ``uint8[H, W, 3]``, shown from `pts_seconds` on."""
        picture = _even(picture)
        if self._stream is None:
            self._stream = self._open_stream(*picture.shape[:2])
            self._start_seconds = pts_seconds
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts, frame.time_base = self._next_pts(pts_seconds), _TIME_BASE
        self._mux(frame)
        self.count += 1

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._mux(None)

    def _open_stream(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=30, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = _TIME_BASE
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries = context.color_trc = _BT709
        return stream

    def _next_pts(self, pts_seconds: float) -> int:
        """The time stamp, which must grow."""
        pts = round((pts_seconds - self._start_seconds) / _TIME_BASE)
        if self.count:
            pts = max(pts, self._pts + 1)
            self._step = pts - self._pts
        self._pts = pts
        return pts

    def _mux(self, frame: av.VideoFrame | None) -> None:
        if self._stream is None:
            return
        for packet in self._stream.encode(frame):
            # The last packet's is what the file's end is made of; the encoder leaves it out.
            packet.duration = packet.duration or self._step
            self._container.mux(packet)


def _even(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return picture
