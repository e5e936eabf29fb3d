"""Live pictures of which only the latest are decoded."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

from masklet.errors import Cancelled, FailedPrecondition, InvalidArgument
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import Picture
from masklet_server.video.sources.latest_pictures import LatestPictureSource
from tests.support.clips import shrunk, take_all


def photo(level: int, width: int = 90, height: int = 60) -> bytes:
    pixels = np.full((height, width, 3), level, np.uint8)
    pixels[: height // 2] //= 2
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def given(level: int, **fields: float) -> Picture:
    return Picture("encoded", photo(level), **fields)  # type: ignore[arg-type]


async def test_those_that_waited_too_long_are_never_decoded() -> None:
    async with LatestPictureSource(32, VideoLimits(), max_latency_seconds=0.05) as source:
        await source.feed(given(10, capture_time_nanoseconds=100))
        assert (await source.info()).width == 90
        await source.feed(Picture("encoded", b"rubbish"))
        await source.feed(Picture("encoded", b"more of it"))
        await asyncio.sleep(0.1)
        await source.feed(given(200, capture_time_nanoseconds=103, pts_seconds=5.0))
        waited = source.has_waiting
        first = await source.next_frame()
        second = await source.next_frame()
        assert (waited, source.has_waiting) == (True, False)
        assert first is not None
        assert second is not None
        assert (first.index, first.capture_time_nanoseconds) == (0, 100)
        assert (second.index, second.capture_time_nanoseconds, second.pts_nanoseconds) == (3, 103, 5 * 10**9)
        assert second.arrived_seconds > first.arrived_seconds + 0.1
        assert np.array_equal(second.pixels, shrunk(Image.open(io.BytesIO(photo(200))), 32))
        await source.end()
        assert await source.next_frame() is None
        assert await source.next_frame() is None


async def test_sizes_may_differ_and_limits_on_clips_do_not_apply() -> None:
    limits = VideoLimits(max_frames=1, max_decoded_pixels=1)
    async with LatestPictureSource(32, limits, max_latency_seconds=60) as source:
        for size in ((90, 60), (40, 80)):
            await source.feed(Picture("encoded", photo(9, *size)))
        await source.end()
        with pytest.raises(FailedPrecondition):
            await source.feed(given(1))
        outcome = await asyncio.wait_for(take_all(source), 60)
    assert outcome.error is None
    assert [(frame.index, frame.width, frame.height) for frame in outcome.frames] == [(0, 90, 60), (1, 40, 80)]


async def test_no_picture_at_all() -> None:
    async with LatestPictureSource(32, VideoLimits(), max_latency_seconds=1) as source:
        await source.end()
        with pytest.raises(InvalidArgument, match="at least one"):
            await source.info()


async def test_a_broken_picture_ends_the_stream_and_what_follows_is_dropped() -> None:
    async with LatestPictureSource(32, VideoLimits(), max_latency_seconds=60) as source:
        await source.feed(given(1))
        await source.feed(Picture("encoded", b"rubbish"))
        await source.feed(given(2))
        assert await source.next_frame() is not None
        with pytest.raises(InvalidArgument):
            await source.next_frame()
        assert not source.has_waiting
        await source.feed(given(3))
        assert not source.has_waiting
        with pytest.raises(InvalidArgument):
            await source.next_frame()


async def test_taking_may_be_cancelled_without_losing_a_picture() -> None:
    async with LatestPictureSource(32, VideoLimits(), max_latency_seconds=60) as source:
        await source.feed(given(1))
        await source.info()
        assert await source.next_frame() is not None
        for index in range(1, 6):
            taking = asyncio.ensure_future(source.next_frame())
            await asyncio.sleep(0)
            await source.feed(given(index))
            await asyncio.sleep(0.001 * index)
            taking.cancel()
            try:
                frame = await taking
            except asyncio.CancelledError:
                frame = await source.next_frame()
            assert frame is not None
            assert frame.index == index


async def test_leaving_ends_a_wait_for_a_picture() -> None:
    source = LatestPictureSource(32, VideoLimits(), max_latency_seconds=1)
    async with source:
        waiting = asyncio.ensure_future(source.next_frame())
        await asyncio.sleep(0.05)
    with pytest.raises(Cancelled):
        await asyncio.wait_for(waiting, 10)
