"""Frames at the model's size: bicubic as SAM 2's reader makes them, or averaged, which must look the same."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from masklet_server.video.worker.pixels import FrameResizer
from tests.support.clips import difference, image_of, resized, shrunk

SIZE = 128


def scene(height: int, width: int) -> npt.NDArray[np.uint8]:
    """``uint8[H, W, 3]``: soft colours, and edges of full contrast."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    soft = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y), np.sin(9 * x * y)], axis=-1) * 90 + 128
    soft[height // 4 : height // 2, width // 4 : width // 2] = (250, 20, 60)
    soft[height // 2 : height * 3 // 4, width // 2 : width * 3 // 4] = (5, 240, 250)
    return soft.astype(np.uint8)


def frame_of(
    pixel_format: str,
    size: tuple[int, int] = (640, 360),
    colorspace: Colorspace | None = None,
    color_range: ColorRange | None = None,
) -> av.VideoFrame:
    width, height = size
    picture = av.VideoFrame.from_ndarray(scene(height, width), format="rgb24")
    made = picture.reformat(format=pixel_format, dst_colorspace=colorspace, dst_color_range=color_range)
    if colorspace is not None:
        made.colorspace = colorspace
    if color_range is not None:
        made.color_range = color_range
    return made


def pixels(frame: av.VideoFrame, scaling: str, transpose: Image.Transpose | None = None) -> npt.NDArray[np.uint8]:
    data = FrameResizer(SIZE, scaling).pixels(frame, transpose)  # type: ignore[arg-type]
    return np.frombuffer(data, np.uint8).reshape(SIZE, SIZE, 3)


@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("colorspace", [Colorspace.ITU709, Colorspace.ITU601])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "nv12"])
def test_averaged_frames_look_as_the_scene_does(
    pixel_format: str, colorspace: Colorspace, color_range: ColorRange
) -> None:
    frame = frame_of(pixel_format, colorspace=colorspace, color_range=color_range)
    averaged, bicubic = pixels(frame, "area"), pixels(frame, "bicubic")
    assert not np.array_equal(averaged, bicubic)
    right = shrunk(Image.fromarray(scene(360, 640)), SIZE)
    # With the other matrix it would be 7, with the other range more.
    assert difference(averaged, right) < 2
    assert difference(averaged, right) < difference(bicubic, right) + 0.5


@pytest.mark.parametrize(("pixel_format", "size"), [
    ("yuv420p", (640, 190)),  # hardly lower than before
    ("yuv420p", (100, 60)),
    ("yuv420p10le", (640, 360)),
    ("yuvj420p", (640, 360)),
    ("yuv444p", (640, 360)),
    ("gray", (640, 360)),
    ("rgb24", (640, 360)),
])  # fmt: skip
def test_other_frames_are_bicubic_always(pixel_format: str, size: tuple[int, int]) -> None:
    frame = frame_of(pixel_format, size)
    assert np.array_equal(pixels(frame, "area"), pixels(frame, "bicubic"))


def test_bicubic_is_swscales_own() -> None:
    frame = frame_of("yuv420p")
    assert np.array_equal(pixels(frame, "bicubic"), np.asarray(resized(frame, SIZE)))
    assert difference(pixels(frame, "bicubic"), shrunk(image_of(frame), SIZE)) < 2.5


def test_averaged_frames_are_turned() -> None:
    frame = frame_of("yuv420p", (360, 640))
    turned = pixels(frame, "area", Image.Transpose.ROTATE_90)
    assert np.array_equal(turned, np.rot90(pixels(frame, "area")))
