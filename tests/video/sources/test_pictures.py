"""Pictures as frames of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, ResourceExhausted
from masklet_server.video.formats import PictureFormat
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import Picture
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


async def test_there_is_room_for_as_many_as_are_decoded_ahead() -> None:
    one = Picture("encoded", encoded(photo()))
    async with PictureSource(32, LIMITS, frames_ahead=2) as source:
        for _ in range(2):
            assert source.has_room_for(one)
            await source.feed(one)
        assert not source.has_room_for(one)
        waiting = asyncio.ensure_future(source.wait_for_room(one))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        assert await source.next_frame() is not None
        await asyncio.wait_for(waiting, 10)
        await source.feed(one)
        await source.end()
        assert len((await take_all(source)).frames) == 2
        with pytest.raises(FailedPrecondition):
            await source.feed(one)


async def test_pictures_without_room_wait_on_disk_and_come_in_order() -> None:
    files = [encoded(photo(index)) for index in range(12)]
    async with PictureSource(32, LIMITS, frames_ahead=2) as source:
        for data in files[:8]:
            await asyncio.wait_for(source.feed(Picture("encoded", data)), 10)
        first = await source.next_frame()
        for data in files[8:]:
            await asyncio.wait_for(source.feed(Picture("encoded", data)), 10)
        await source.end()
        outcome = await asyncio.wait_for(take_all(source), 60)
    assert outcome.error is None
    assert first is not None
    frames = [first, *outcome.frames]
    assert [frame.index for frame in frames] == list(range(12))
    for frame, data in zip(frames, files, strict=True):
        assert np.array_equal(frame.pixels, shrunk(Image.open(io.BytesIO(data)), 32))


async def test_waiting_for_a_frame_that_is_cancelled_loses_no_picture() -> None:
    async with PictureSource(32, LIMITS, frames_ahead=1) as source:
        for index in range(6):
            await source.feed(Picture("encoded", encoded(photo(index))))
        await source.end()
        found = []
        for seconds in [0.0, 0.0005, 0.001, 0.002, 0.004] * 40 + [60.0] * 7:
            with contextlib.suppress(asyncio.TimeoutError):
                found.append(await asyncio.wait_for(source.next_frame(), seconds))
    assert [frame.index for frame in found if frame is not None] == list(range(6))


async def test_what_waits_on_disk_is_bounded() -> None:
    one = Picture("encoded", encoded(photo()))
    limits = VideoLimits(max_upload_bytes=3 * len(one.data))
    async with PictureSource(32, limits, frames_ahead=1) as source:
        for _ in range(4):
            await source.feed(one)
        with pytest.raises(ResourceExhausted, match=r"frame: results wait .* max_upload_bytes = .* \(ack\)"):
            await source.feed(one)


async def test_a_refused_picture_ends_waits_for_room() -> None:
    one = Picture("encoded", encoded(photo()))
    async with PictureSource(32, LIMITS, frames_ahead=1) as source:
        await source.feed(Picture("encoded", b"rubbish"))
        await source.feed(one)
        waiting = asyncio.ensure_future(source.wait_for_room(one))
        with pytest.raises(InvalidArgument):
            await source.next_frame()
        await asyncio.wait_for(waiting, 10)
        await source.feed(one)


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
