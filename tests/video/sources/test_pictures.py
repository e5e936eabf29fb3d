"""Pictures as frames of a stream, and single pictures."""

from __future__ import annotations

import asyncio
import io
import math
import os
import signal
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument, MaskletError, ResourceExhausted
from masklet_server.video.formats import PictureFormat
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import Picture
from masklet_server.video.sandbox.picture_pool import decode_picture, pool_for
from masklet_server.video.sources.pictures import PictureSource
from tests.support.clips import Outcome, picture, shrunk, take_all

LIMITS = VideoLimits()


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def photo(index: int = 0, width: int = 90, height: int = 60) -> Image.Image:
    return Image.fromarray(picture(index, width, height))


async def decode_all(*pictures: Picture, limits: VideoLimits = LIMITS, image_size: int = 32) -> Outcome:
    async with PictureSource(image_size, limits) as source:

        async def feed() -> None:
            for one in pictures:
                await source.feed(one)
            await source.end()

        _, outcome = await asyncio.wait_for(asyncio.gather(feed(), take_all(source)), 60)
        return outcome


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
async def test_a_folder_of_pictures_gives_pillows_frames(file_format: str) -> None:
    files = [encoded(photo(index), file_format) for index in range(6)]
    outcome = await decode_all(*(Picture("encoded", data) for data in files))
    assert outcome.error is None
    assert outcome.info is not None
    assert (outcome.info.width, outcome.info.height, outcome.info.container) == (90, 60, "pictures")
    for index, (frame, data) in enumerate(zip(outcome.frames, files, strict=True)):
        assert (frame.index, frame.width, frame.height) == (index, 90, 60)
        assert frame.pts_nanoseconds == round(index * 1e9 / 30)
        assert np.array_equal(frame.pixels, shrunk(Image.open(io.BytesIO(data)), 32))


def test_nv12_data_has_an_even_size() -> None:
    with pytest.raises(InvalidArgument, match="even"):
        Picture("nv12", bytes(7 * 4 * 3 // 2), 7, 4)


async def test_nv12_pictures_are_what_ffmpeg_makes_of_them() -> None:
    frame = av.VideoFrame.from_ndarray(picture(3, 96, 64), format="rgb24").reformat(format="nv12")
    raw = frame.to_ndarray().tobytes()
    outcome = await decode_all(Picture("nv12", raw, 64, 96, capture_time_nanoseconds=77), image_size=64)
    assert outcome.error is None
    expected = shrunk(Image.fromarray(frame.to_ndarray(format="rgb24")), 64).astype(int)
    difference = np.abs(outcome.frames[0].pixels.astype(int) - expected)
    assert difference.mean() < 2, "but for how chroma is spread over pixels"
    assert np.median(difference) <= 1
    assert outcome.frames[0].capture_time_nanoseconds == 77
    assert outcome.frames[0].arrived_seconds > 0


async def test_live_pictures_may_differ_in_size_and_repeat_their_times() -> None:
    given = [Picture("encoded", encoded(photo(0, *size)), pts_seconds=1.0) for size in ((90, 60), (40, 80), (90, 60))]
    async with PictureSource(32, VideoLimits(max_frames=1, max_decoded_pixels=1), live=True) as source:
        for one in given:
            await source.feed(one)
        await source.end()
        outcome = await asyncio.wait_for(take_all(source), 60)
    assert outcome.error is None
    assert [(frame.width, frame.height) for frame in outcome.frames] == [(90, 60), (40, 80), (90, 60)]
    assert [frame.pts_nanoseconds for frame in outcome.frames] == [10**9] * 3


@pytest.mark.parametrize("form", ["rgb24", "bgr24", "gray8"])
async def test_raw_pictures(form: PictureFormat) -> None:
    pixels = picture(3, 90, 60)
    raw = {"rgb24": pixels, "bgr24": pixels[..., ::-1], "gray8": pixels[..., 0]}[form].tobytes()
    outcome = await decode_all(Picture(form, raw, 60, 90, 1.5), Picture(form, raw, 60, 90, 1.25))
    assert outcome.error is None
    expected = np.stack([pixels[..., 0]] * 3, axis=-1) if form == "gray8" else pixels
    assert np.array_equal(outcome.frames[0].pixels, shrunk(Image.fromarray(expected), 32))
    assert [frame.pts_nanoseconds for frame in outcome.frames] == [1_500_000_000, 1_250_000_000]


async def test_feeding_waits_for_the_taker() -> None:
    one = Picture("encoded", encoded(photo()))
    async with PictureSource(32, LIMITS, frames_ahead=2) as source:
        await source.feed(one)
        await source.feed(one)
        third = asyncio.ensure_future(source.feed(one))
        done, _ = await asyncio.wait({third}, timeout=0.3)
        assert not done
        assert await source.next_frame() is not None
        await asyncio.wait_for(third, 10)
        await source.end()
        assert len((await take_all(source)).frames) == 2
        with pytest.raises(FailedPrecondition):
            await source.feed(one)


async def test_a_refusal_wakes_who_feeds() -> None:
    async with PictureSource(32, LIMITS, frames_ahead=1) as source:
        await source.feed(Picture("encoded", b"rubbish"))
        waiting = [asyncio.ensure_future(source.feed(Picture("encoded", encoded(photo())))) for _ in range(3)]
        with pytest.raises(InvalidArgument):
            await source.next_frame()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)


async def test_frames_of_different_sizes() -> None:
    outcome = await decode_all(Picture("encoded", encoded(photo())), Picture("encoded", encoded(photo(0, 80, 60))))
    assert isinstance(outcome.error, InvalidArgument)
    assert "frame 1 is 80x60 pixels, the first one was 90x60" in outcome.error.message
    assert len(outcome.frames) == 1


async def test_no_picture_at_all() -> None:
    outcome = await decode_all()
    assert isinstance(outcome.error, InvalidArgument)
    assert outcome.error.violations[0].field == "frame"


@pytest.mark.parametrize(("limits", "name"), [
    (VideoLimits(max_frames=3), "max_frames"),
    (VideoLimits(max_duration_seconds=0.09), "max_duration_seconds"),
    (VideoLimits(max_decoded_pixels=90 * 60 * 3), "max_decoded_pixels"),
    (VideoLimits(max_frame_pixels=90 * 59), "max_frame_pixels"),
    (VideoLimits(max_side=89), "max_side"),
])  # fmt: skip
async def test_limits(limits: VideoLimits, name: str) -> None:
    one = Picture("encoded", encoded(photo()))
    try:
        error: MaskletError | None = (await decode_all(*[one] * 4, limits=limits)).error
    except ResourceExhausted as raised:
        error = raised
    assert isinstance(error, ResourceExhausted)
    assert name in error.message


BAD_PICTURES: list[tuple[dict[str, Any], str]] = [
    ({"format": "jpeg", "data": b"x"}, "format"),
    ({"format": "encoded", "data": b""}, "data"),
    ({"format": "rgb24", "data": b"123", "height": 0, "width": 1}, "height"),
    ({"format": "rgb24", "data": b"123", "height": 1, "width": -1}, "width"),
    ({"format": "rgb24", "data": b"1234", "height": 1, "width": 1}, "data"),
    ({"format": "gray8", "data": b"123", "height": 1, "width": 1}, "data"),
    ({"format": "encoded", "data": b"x", "pts_seconds": math.nan}, "pts_seconds"),
    ({"format": "encoded", "data": b"x", "pts_seconds": 1e300}, "pts_seconds"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_PICTURES)
def test_pictures_check_themselves(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Picture(**fields)
    assert caught.value.violations[0].field == field


def test_repr() -> None:
    assert repr(Picture("rgb24", b"abc", 1, 1)) == "Picture(rgb24, 3 bytes, 1x1, pts_seconds=None)"


async def one(data: bytes, limits: VideoLimits = LIMITS) -> npt.NDArray[np.uint8]:
    return await asyncio.wait_for(decode_picture(Picture("encoded", data), limits), 60)


async def test_a_single_picture_at_full_size() -> None:
    image = photo(0, 1000, 700)
    pixels = await one(encoded(image))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(image))
    raw = await decode_picture(Picture("bgr24", image.tobytes(), 700, 1000), LIMITS)
    assert np.array_equal(raw, np.asarray(image)[..., ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_exif_orientation(orientation: int) -> None:
    upright = photo(0, 96, 64)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(await one(encoded(stored, "PNG", exif=exif)), np.asarray(upright))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "I;16"])
async def test_modes(mode: str) -> None:
    gray = photo().convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    else:
        image = gray.quantize() if mode == "P" else gray.convert("RGB").convert(mode)
    expected = np.asarray(gray.convert("1" if mode == "1" else "L").convert("RGB")).astype(int)
    pixels = await one(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert np.abs(pixels - expected).max() <= 2


async def test_transparency_lies_on_black() -> None:
    image = photo().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (await one(encoded(image))).max() == 0
    palette = photo().convert("P")
    assert (await one(encoded(palette, transparency=bytes(256)))).max() == 0


async def test_only_the_first_frame_counts() -> None:
    first, second = photo(0), photo(5)
    pixels = await one(encoded(first, "TIFF", save_all=True, append_images=[second]))
    assert np.array_equal(pixels, np.asarray(first))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data do not have."""
    data = bytearray(encoded(photo(0, 8, 8)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


BAD_FILES: dict[str, tuple[bytes, type[MaskletError]]] = {
    "rubbish": (b"rubbish" * 100, InvalidArgument),
    "gif": (encoded(photo(), "GIF"), InvalidArgument),
    "postscript": (encoded(photo(), "EPS"), InvalidArgument),
    "truncated": (encoded(photo(), "JPEG")[:-200], DataLoss),
    "bomb": (bomb(60_000, 60_000), ResourceExhausted),
    "long side": (bomb(20_000, 2), ResourceExhausted),
}


@pytest.mark.parametrize("kind", BAD_FILES)
async def test_bad_files(kind: str) -> None:
    data, error = BAD_FILES[kind]
    with pytest.raises(error) as caught:
        await one(data)
    if isinstance(caught.value, InvalidArgument):
        assert caught.value.violations[0].field == "data"
    assert np.array_equal(await one(encoded(photo())), np.asarray(photo()))


async def test_flipped_bits() -> None:
    rng = np.random.default_rng(0)
    for file_format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        good = encoded(photo(), file_format)
        for flips in (1, 3, 10, 30):
            data = bytearray(good)
            for position in rng.integers(0, len(data), flips):
                data[position] ^= 1 << int(rng.integers(8))
            try:
                assert (await one(bytes(data))).ndim == 3
            except MaskletError as error:
                assert error.message  # noqa: PT017
    assert (await one(encoded(photo()))).shape == (60, 90, 3)


def wait_for_death(pid: int) -> None:
    """Until nothing of it is left."""
    while not is_gone(pid):
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Not even a zombie is left."""
    return not Path(f"/proc/{pid}").exists()


async def test_processes_are_kept_and_replaced_when_they_die() -> None:
    limits = VideoLimits(max_side=9999)  # processes of our own
    data = encoded(photo())
    await one(data, limits)
    pool = pool_for(limits)
    (pid,) = pool.idle_pids
    await one(data, limits)
    assert pool.idle_pids == [pid]
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_for_death, pid)
    await one(data, limits)
    assert pid not in pool.idle_pids
    assert is_gone(pid)


async def test_a_process_that_dies_at_work_is_an_error() -> None:
    limits = VideoLimits(max_side=9998, first_frame_timeout_seconds=1.0)
    data = encoded(photo())
    await one(data, limits)
    os.kill(pool_for(limits).idle_pids[0], signal.SIGSTOP)
    with pytest.raises(ResourceExhausted, match="first_frame_timeout_seconds"):
        await one(data, limits)
    await one(data, limits)
    stopped = pool_for(limits).idle_pids[0]
    os.kill(stopped, signal.SIGSTOP)
    waiting = asyncio.ensure_future(one(data, limits))
    await asyncio.sleep(0.2)
    os.kill(stopped, signal.SIGSEGV)
    os.kill(stopped, signal.SIGCONT)
    with pytest.raises(DataLoss, match="SIGSEGV"):
        await waiting
    assert is_gone(stopped)


async def test_many_single_pictures_at_once() -> None:
    images = [photo(index) for index in range(20)]
    results = await asyncio.gather(*(one(encoded(image)) for image in images))
    assert all(np.array_equal(pixels, np.asarray(image)) for pixels, image in zip(results, images, strict=True))


def test_processes_serve_several_event_loops() -> None:
    data = encoded(photo())
    for _ in range(2):
        assert asyncio.run(decode_picture(Picture("encoded", data), LIMITS)).shape == (60, 90, 3)
