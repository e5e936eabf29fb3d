"""Decoded frames as a viewer sees them, and what all decoders are told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import av
from av.buffer import Buffer
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType

from masklet_server.video.limits import VideoLimits
from masklet_server.video.worker.pixels import FrameResizer, orientation, shown_size
from masklet_server.video.worker.refusal import Refusal

_MAX_THREADS = 4
# Decoders round sizes up to whole blocks before they compare them with `max_pixels`.
_BLOCK = 128
_SideData = cast("Callable[[av.VideoFrame], Mapping[SideDataType, Buffer]]", SideDataContainer)  # for PyAV's stubs


@dataclass(frozen=True)
class ShownFrame:
    """One frame as a viewer sees it.

    Attributes:
        pts: In units of the video's time base.
        height: In pixels.
        width: In pixels.
        pixels: At the model's size: RGB bytes of ``[image_size, image_size, 3]``, turned as shown.
        rotation_degrees: Clockwise turn that was applied.
        undecoded: Times of the frames between the one before and this one that could not be decoded.
        is_key: It can be decoded without any frame before it.
    """

    pts: int
    height: int
    width: int
    pixels: bytes
    rotation_degrees: int
    undecoded: tuple[int, ...] = ()
    is_key: bool = False


def show(pts: int, frame: av.VideoFrame, resizer: FrameResizer, *, undecoded: tuple[int, ...] = ()) -> ShownFrame:
    """The frame as a viewer sees it, at the model's size; `ShownFrame` describes the arguments.

    Raises:
        Refusal: Its pixels cannot be converted.
    """
    # Not frame.side_data: with it a frame refers to itself, and its megabytes would wait for the garbage collector
    # while FFmpeg takes new ones from the kernel.
    matrix = _SideData(frame).get(SideDataType.DISPLAYMATRIX)
    transpose, degrees = orientation(None if matrix is None else bytes(matrix))
    try:
        pixels = resizer.pixels(frame, transpose)
    except av.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        raise Refusal(
            "DataLoss", f"frames of pixel format {frame.format.name} cannot be converted to RGB: {error.strerror}"
        ) from error
    height, width = shown_size(frame.height, frame.width, transpose)
    return ShownFrame(pts, height, width, pixels, degrees, undecoded, bool(frame.key_frame))


def decoder_threads() -> int:
    """Threads for one stream: half of the cores at most. On few cores more would only compete with the engine."""
    return max(1, min(_MAX_THREADS, len(os.sched_getaffinity(0)) // 2))


def max_coded_pixels(limits: VideoLimits) -> int:
    """What decoders are told as their `max_pixels`."""
    return min(2**31 - 1, limits.max_frame_pixels + 2 * _BLOCK * limits.max_side)
