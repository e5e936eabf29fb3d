"""Decodes a video into the frames that the server saw."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator
from typing import IO, Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from PIL import Image

from masklet._media.pictures import load_rgb
from masklet._media.uploads import SourceUrl, VideoSource, picture_files, video_path
from masklet._protocol.results import FrameResult
from masklet.errors import DataLoss, InvalidArgument
from masklet_media.clip_reader import ClipReader, NoVideo, may_be_transparent
from masklet_media.picture_pages import PicturePages, has_pages
from masklet_media.rgb import flatten


def shown_frames(video: VideoSource) -> Iterator[npt.NDArray[np.uint8]]:
    """Every frame of a video, as shown (rotation applied), decoded when it is asked for.

    Args:
        video: As for `Client.track`; a `SourceUrl` cannot be read here.

    Yields:
        ``uint8[H, W, 3]`` RGB.

    Raises:
        InvalidArgument: It is not a video that can be read here.
        DataLoss: It cannot be decoded.
        OSError: A file cannot be read.
    """
    if isinstance(video, SourceUrl):
        raise InvalidArgument.of(
            "video", f"{video.url} was read by the server alone; download it, and give the path of the file"
        )
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


def matched(
    results: Iterable[FrameResult], frames: Iterator[npt.NDArray[np.uint8]]
) -> Iterator[tuple[FrameResult, npt.NDArray[np.uint8]]]:
    """Each result with the pixels of its frame.

    Args:
        results: In the order of the frames; frames without a result are left out.
        frames: As `shown_frames` gives them.

    Raises:
        DataLoss: The frames end before the results do.
    """
    numbered = enumerate(frames)
    for result in results:
        for index, pixels in numbered:
            if index == result.frame_index:
                yield result, pixels
                break
        else:
            raise DataLoss(f"the video has no frame {result.frame_index} to draw on; is it the one that was tracked?")


def _decoded(file: IO[bytes]) -> Iterator[npt.NDArray[np.uint8]]:
    start = file.read(16)
    file.seek(0)
    if has_pages(start):
        yield from _pages(file)
        return
    try:
        # No protocol has this name: nothing but the file itself is read.
        with av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace") as container:
            for clip_frame in ClipReader(container, threads=os.cpu_count() or 1).frames():
                yield shown_pixels(clip_frame.picture)
    except NoVideo as error:
        raise DataLoss(str(error)) from error
    except av.FFmpegError as error:
        raise DataLoss(f"the video cannot be decoded: {error.strerror}") from error


def _pages(file: IO[bytes]) -> Iterator[npt.NDArray[np.uint8]]:
    try:
        for page in PicturePages(file).pages():
            yield np.asarray(page.picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataLoss(f"the file of pictures cannot be decoded: {error}") from error


def shown_pixels(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """The frame as shown: ``uint8[H, W, 3]`` RGB, on black where it is transparent, turned as its matrix says."""
    if may_be_transparent(frame):
        rgba = frame.reformat(format="rgba").to_ndarray()
        pixels = np.asarray(flatten(Image.fromarray(rgba)))
    else:
        pixels = cast("npt.NDArray[np.uint8]", frame.to_ndarray(format="rgb24"))
    matrix = _display_matrix(frame)
    return pixels if matrix is None else turned(pixels, matrix)


def is_turned(frame: av.VideoFrame) -> bool:
    """Whether a frame is turned or flipped to be shown."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return False
    a, _, _, _, d = struct.unpack("=9i", matrix)[:5]
    return not (a > 0 and d > 0)


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    # Not frame.side_data: frame and side data would hold each other, and megabytes wait for the garbage collector.
    matrix = cast("Any", SideDataContainer)(frame).get(SideDataType.DISPLAYMATRIX)
    return None if matrix is None else bytes(matrix)


def turned(pixels: npt.NDArray[np.uint8], display_matrix: bytes) -> npt.NDArray[np.uint8]:
    """Turn and flip pixels as a display matrix says (FFmpeg's libavutil/display.h), by right angles.

    The matrix [a b; c d] puts a pixel at x' = a x + c y, y' = b x + d y.

    Args:
        pixels: ``uint8[H, W, 3]``.
        display_matrix: Nine int32, as FFmpeg's side data has them.

    Returns:
        ``uint8[H, W, 3]`` or ``uint8[W, H, 3]``.
    """
    a, b, _, c, d = struct.unpack("=9i", display_matrix)[:5]
    if a == d == 0:
        pixels, flip_x, flip_y = pixels.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
