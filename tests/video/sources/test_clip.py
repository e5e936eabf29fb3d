"""Which frames come out of a good clip: sizes, colours, times, orientation."""

from __future__ import annotations

import gc
import io
import tempfile
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from masklet.errors import InvalidArgument
from masklet_server.video.formats import CODECS
from masklet_server.video.limits import VideoLimits
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.clip_decoder import Clip
from tests.support.clips import (
    BUNNY,
    decode_clip,
    difference,
    frames_alive,
    image_of,
    make_clip,
    picture,
    reference,
    resized,
    shrunk,
)

KINDS: dict[str, dict[str, Any]] = {
    "h264": {"audio": True},
    "hevc": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}},
    "hevc 10 bit": {
        "codec": "libx265",
        "pixel_format": "yuv420p10le",
        "codec_options": {"x265-params": "log-level=none"},
    },
    "av1": {"codec": "libsvtav1", "size": (64, 64)},
    "vp8": {"container": "webm", "codec": "libvpx"},
    "vp9": {"container": "webm", "codec": "libvpx-vp9"},
    "mpeg4": {"container": "avi", "codec": "mpeg4"},
    "mpeg2video": {"container": "mpeg", "codec": "mpeg2video"},
    "mpeg1video": {"container": "mpeg", "codec": "mpeg1video"},
    "mjpeg": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "prores": {"container": "mov", "codec": "prores_ks", "pixel_format": "yuv422p10le"},
    "odd size": {"container": "matroska", "codec": "ffv1", "size": (63, 47)},
    "gray": {"container": "matroska", "codec": "ffv1", "pixel_format": "gray"},
    "gray 10 bit": {"container": "matroska", "codec": "ffv1", "pixel_format": "gray10le"},
    "transport stream": {"container": "mpegts"},
    "flash video": {"container": "flv"},
    "ogg": {"container": "ogg", "codec": "libvpx"},
    "b frames": {"codec_options": {"bf": "3", "b_strategy": "0"}, "frames": 20},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_frames_are_those_of_pyav_and_look_like_those_of_pillow(kind: str) -> None:
    data = make_clip(**KINDS[kind])
    expected = reference(data)
    outcome = await decode_clip(data)
    assert outcome.error is None
    assert [frame.index for frame in outcome.frames] == list(range(len(expected)))
    assert [(frame.pts, frame.time_base) for frame in outcome.frames] == [(one.pts, one.time_base) for one in expected]
    for frame, one in zip(outcome.frames, expected, strict=True):
        assert (frame.width, frame.height) == (one.width, one.height)
        assert np.array_equal(frame.pixels, np.asarray(resized(one, 32)))
        assert difference(frame.pixels, shrunk(image_of(one), 32)) < 2.5


async def test_frames_are_at_the_models_size() -> None:
    outcome = await decode_clip(make_clip(frames=2, size=(160, 90)), image_size=384)
    assert outcome.frames[0].pixels.shape == (384, 384, 3)
    assert outcome.frames[0].pixels.dtype == np.uint8
    assert repr(outcome.frames[1]).startswith("Frame(index=1, pts=512*1/12800s, 160x90, pixels=uint8[384, 384, 3]")


async def test_the_example() -> None:
    outcome = await decode_clip(BUNNY.read_bytes(), image_size=64)
    assert len(outcome.frames) == 132
    info = outcome.info
    assert info is not None
    assert (info.width, info.height, info.frame_rate, info.frame_count) == (1280, 720, 25.0, 132)
    assert info.duration_seconds == pytest.approx(5.28)
    assert (info.container, info.codec, info.rotation_degrees) == ("mov,mp4,m4a,3gp,3g2,mj2", "h264", 0)
    last = outcome.frames[-1]
    assert last.pts_nanoseconds == 131 * 40_000_000
    theirs = reference(BUNNY.read_bytes())[-1]
    assert np.array_equal(last.pixels, np.asarray(resized(theirs, 64)))
    assert difference(last.pixels, shrunk(image_of(theirs), 64)) < 3


@pytest.mark.parametrize(("size", "most"), [
    ((2, 2), 30),  # the filters overshoot differently where hardly anything is between the edges
    ((16, 2), 20),
    ((2, 16), 20),
    ((4096, 16), 6),
    ((1920, 1080), 1),
])  # fmt: skip
async def test_any_shape_can_be_resized(size: tuple[int, int], most: float) -> None:
    data = make_clip("matroska", "ffv1", frames=1, size=size, pixel_format="yuv444p")
    (frame,) = (await decode_clip(data, image_size=128)).frames
    (theirs,) = reference(data)
    assert (frame.width, frame.height) == size
    assert difference(frame.pixels, shrunk(image_of(theirs), 128)) < most


async def test_variable_frame_rate_keeps_its_times() -> None:
    times = [0, 40, 50, 250, 251, 900]
    data = make_clip("matroska", frames=6, pts=times, time_base=Fraction(1, 1000), codec_options={"bf": "0"})
    outcome = await decode_clip(data)
    assert [frame.pts * frame.time_base for frame in outcome.frames] == [Fraction(time, 1000) for time in times]


@pytest.mark.parametrize("codec_options", [{"bf": "3", "b_strategy": "0"}, {"bf": "0"}])
async def test_time_stamps_grow(codec_options: dict[str, str]) -> None:
    data = make_clip("avi", "mpeg4", frames=12, codec_options=codec_options)  # AVI holds no presentation times
    pts = [frame.pts for frame in (await decode_clip(data)).frames]
    assert len(pts) == 12
    assert pts == sorted(set(pts))


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize(("counter_clockwise", "transpose", "clockwise"), [
    (0, None, 0),
    (90, Image.Transpose.ROTATE_90, 270),
    (180, Image.Transpose.ROTATE_180, 180),
    (270, Image.Transpose.ROTATE_270, 90),
])  # fmt: skip
async def test_display_matrix_is_applied(
    counter_clockwise: int, transpose: Image.Transpose | None, clockwise: int, hflip: bool
) -> None:
    data = make_clip(frames=3, rotation=counter_clockwise, hflip=hflip)
    outcome = await decode_clip(data)
    stored = reference(data)[1]
    width, height = (stored.height, stored.width) if counter_clockwise % 180 else (stored.width, stored.height)
    small = resized(stored, 32)
    shown = small if transpose is None else small.transpose(transpose)
    if hflip:
        shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert outcome.info is not None
    if not hflip:
        assert outcome.info.rotation_degrees == clockwise
    assert (outcome.info.width, outcome.info.height) == (width, height)
    assert (outcome.frames[1].width, outcome.frames[1].height) == (width, height)
    assert np.array_equal(outcome.frames[1].pixels, np.asarray(shown))


async def test_a_turn_of_90_degrees_swaps_the_sides() -> None:
    info = (await decode_clip(make_clip(frames=1, rotation=270))).info
    assert info is not None
    assert (info.width, info.height) == (48, 64)


@pytest.mark.parametrize("kind", [
    {"container": "matroska", "codec": "ffv1", "pixel_format": "bgra"},
    {"container": "mov", "codec": "prores_ks", "pixel_format": "yuva444p10le"},
    {"container": "apng", "codec": "apng", "pixel_format": "rgba"},
])  # fmt: skip
async def test_transparent_pixels_are_put_on_black(kind: dict[str, Any]) -> None:
    solid = np.dstack([picture(0, 64, 48), np.full((48, 64), 255, np.uint8)])
    solid[:, :32, 3] = 0
    outcome = await decode_clip(make_clip(**kind, pictures=[solid, solid]))
    pixels = outcome.frames[0].pixels
    assert pixels[:, :13].max() <= 2
    assert np.abs(pixels[:, 19:].astype(int) - shrunk(Image.fromarray(solid[..., :3]), 32)[:, 19:]).mean() < 6


async def test_gif() -> None:
    outcome = await decode_clip(make_clip("gif", "gif", pixel_format="bgr8", frames=4))
    assert outcome.error is None
    assert len(outcome.frames) == 4
    assert outcome.frames[0].pixels[4, 4, 0] > 180  # the red quarter


@pytest.mark.parametrize(("matrix", "luma_of_green"), [("bt709", 0.7152), ("smpte170m", 0.587), (None, 0.587)])
@pytest.mark.parametrize("full_range", [False, True])
async def test_colours_follow_the_streams_matrix_and_range(
    matrix: str | None, luma_of_green: float, full_range: bool
) -> None:
    """A gray of known luma is the same in all; a saturated chroma tells the matrices apart."""
    frame = av.VideoFrame(64, 48, "yuv444p")
    values = (120, 128, 200)
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    data = _encode_planes(frame, matrix, full_range)
    pixels = (await decode_clip(data)).frames[0].pixels[16, 16].astype(float)
    luma_of_red = 0.2126 if matrix == "bt709" else 0.299
    luma_of_blue = 1 - luma_of_red - luma_of_green
    if full_range:
        luma, chroma = values[0] / 255, (values[2] - 128) / 255
    else:
        luma, chroma = (values[0] - 16) / 219, (values[2] - 128) / 224
    red = luma + 2 * (1 - luma_of_red) * chroma
    green = luma - 2 * luma_of_red * (1 - luma_of_red) / luma_of_green * chroma
    expected = np.clip(np.array([red, green, luma]) * 255, 0, 255)
    assert luma_of_blue > 0
    assert np.abs(pixels - expected).max() <= 2


def _encode_planes(frame: av.VideoFrame, matrix: str | None, full_range: bool) -> bytes:
    numbers = {"bt709": 1, "smpte170m": 6, None: 2}
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv444p"
        stream.codec_context.colorspace = numbers[matrix]
        stream.codec_context.color_range = 2 if full_range else 1
        frame.colorspace = numbers[matrix]
        frame.color_range = 2 if full_range else 1
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


async def test_cover_pictures_and_sound_are_not_video() -> None:
    outcome = await decode_clip(make_clip("matroska", audio=True, frames=5))
    assert len(outcome.frames) == 5


async def test_resolution_change_names_both_sizes() -> None:
    data = make_clip("mpegts", frames=6) + make_clip("mpegts", frames=6, size=(96, 80))
    outcome = await decode_clip(data)
    assert isinstance(outcome.error, InvalidArgument)
    assert "96x80" in outcome.error.message
    assert "64x48" in outcome.error.message
    assert outcome.error.violations[0].field == "video_chunk"
    assert len(outcome.frames) == 6


@pytest.mark.parametrize(("codec", "container", "pixel_format"), [
    ("zmbv", "avi", "bgr0"),
    ("flv", "flv", "yuv420p"),
])  # fmt: skip
async def test_codec_beyond_the_list_is_refused(codec: str, container: str, pixel_format: str) -> None:
    data = make_clip(container, codec, pixel_format=pixel_format, frames=2)
    outcome = await decode_clip(data)
    assert isinstance(outcome.error, InvalidArgument)
    assert "video_chunk: has the codec" in outcome.error.message
    assert CODECS[0] in outcome.error.message
    assert "ffmpeg -i FILE -c:v libx264 -crf 18 -f matroska - | masklet track -" in outcome.error.message
    assert outcome.frames == []


def test_frames_are_freed_without_the_garbage_collector() -> None:
    """At 1080p each has three megabytes; those that wait for it make the decoder take new ones from the kernel."""
    with tempfile.TemporaryFile() as file:
        file.write(make_clip(frames=20, rotation=90))
        file.flush()
        arrived = ArrivingFile(file.fileno(), lambda: None)
        arrived.arrived, arrived.complete = file.tell(), True
        gc.collect()
        before = frames_alive()
        gc.disable()
        try:
            shown = list(Clip(arrived, VideoLimits(), image_size=32, threads=1).frames())
            left = frames_alive() - before
        finally:
            gc.enable()
    assert len(shown) == 20
    assert left < 5
