"""Frames that are decoded for the second time are the same, wherever decoding begins."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from masklet.errors import DataLoss
from masklet_server.video.frame import Frame
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sources.clip import ClipSource
from masklet_server.video.sources.clip_redecoder import ClipRedecoder, FrameRecords, SpooledClip
from masklet_server.video.sources.spool import Spool
from tests.support.clips import decode_clip, make_clip, take_all

FRAMES = 60
X264 = {"preset": "ultrafast", "scenecut": "0"}
# Each with whether a search leads to the right frames, so that the file need not be decoded from its start; None: now
# and then it does.
KINDS: dict[str, tuple[dict[str, Any], bool | None]] = {
    "h264": ({"codec_options": X264, "gop": 10}, True),
    "b frames": ({"codec_options": {**X264, "bf": "3", "b_strategy": "0"}, "gop": 12}, True),
    "open gop": ({"codec_options": {**X264, "bf": "3", "x264-params": "open-gop=1:b-adapt=0"}, "gop": 12}, True),
    "matroska, b frames": ({"container": "matroska", "codec_options": {**X264, "bf": "3"}, "gop": 12}, True),
    "transport stream": ({"container": "mpegts", "codec_options": {**X264, "bf": "2"}, "gop": 10}, True),
    "fragmented": ({"options": {"movflags": "frag_keyframe+empty_moov"}, "codec_options": X264, "gop": 10}, True),
    "hevc, open gop": (
        {"codec": "libx265", "codec_options": {"x265-params": "open-gop=1:keyint=12:min-keyint=12:log-level=none"}},
        True,
    ),
    "vp9": ({"container": "webm", "codec": "libvpx-vp9", "codec_options": {"cpu-used": "8"}, "gop": 12}, True),
    "mpeg2": ({"container": "mpeg", "codec": "mpeg2video", "codec_options": {"bf": "2"}, "gop": 12}, None),
    "avi": ({"container": "avi", "codec": "mpeg4", "gop": 10}, True),
    # No key frame but the first; the places that pass for one show a part of the picture.
    "refreshed bit by bit": (
        {"container": "mpegts", "codec_options": {"preset": "ultrafast", "x264-params": "intra-refresh=1:keyint=50"}},
        None,
    ),
    # Each picture lies upon those before it, and there is no going back but to the first.
    "apng": ({"container": "apng", "codec": "apng", "pixel_format": "rgb24"}, True),
}


@contextlib.asynccontextmanager
async def decoded(data: bytes, take: int = FRAMES) -> AsyncIterator[tuple[ClipSource, list[Frame]]]:
    """A clip that was decoded once."""
    async with ClipSource(32, VideoLimits()) as source:
        await source.feed(data)
        await source.end()
        frames = [await asyncio.wait_for(source.next_frame(), 60) for _ in range(take)]
        yield source, [frame for frame in frames if frame is not None]


async def take(redecoder: ClipRedecoder, count: int) -> list[Frame]:
    return [await asyncio.wait_for(redecoder.next_frame(), 60) for _ in range(count)]


def assert_same(frames: list[Frame], first: list[Frame]) -> None:
    assert [(f.index, f.pts, f.time_base) for f in frames] == [(f.index, f.pts, f.time_base) for f in first]
    assert [(f.height, f.width) for f in frames] == [(f.height, f.width) for f in first]
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(frames, first, strict=True))


@pytest.mark.parametrize("kind", KINDS)
async def test_from_any_frame_on_they_are_the_same(kind: str) -> None:
    properties, seeks = KINDS[kind]
    async with decoded(make_clip(frames=FRAMES, **properties)) as (source, first):
        assert len({frame.checksum for frame in first}) == FRAMES, "a frame that is another one would be noticed"
        from_start = []
        for start in (0, 29, 45, 55):
            async with source.redecode(start) as redecoder:
                assert_same(await take(redecoder, FRAMES - start), first[start:])
                from_start.append(redecoder.is_from_start)
        assert from_start[0], "there is nothing to look for before it"
        assert seeks is None or from_start[1:] == [not seeks] * 3
        if kind == "refreshed bit by bit":
            assert any(from_start[1:]), "this clip was to show what happens where a search leads astray"


async def test_a_clip_can_be_redecoded_while_its_upload_goes_on() -> None:
    data = make_clip("matroska", frames=FRAMES, size=(320, 240), codec_options=X264, gop=10)
    async with ClipSource(32, VideoLimits()) as source:
        await source.feed(data[: len(data) * 3 // 4])
        frames = [await asyncio.wait_for(source.next_frame(), 60) for _ in range(40)]
        first = [frame for frame in frames if frame is not None]
        async with source.redecode(20) as redecoder:
            assert_same(await take(redecoder, 15), first[20:35])
        await source.feed(data[len(data) * 3 // 4 :])
        await source.end()
        rest = await take_all(source)
    assert rest.error is None
    assert [frame.index for frame in rest.frames] == list(range(40, FRAMES)), "the first decoder is left alone"


class Records(FrameRecords):
    """Records of which one may be that of another frame."""

    other: int | None = None

    def is_same(self, frame: Frame) -> bool:
        return frame.index != self.other and super().is_same(frame)


async def test_when_a_frame_after_a_key_frame_is_another_one_the_file_is_decoded_from_its_start() -> None:
    data = make_clip(frames=FRAMES, codec_options=X264, gop=10)
    first = (await decode_clip(data)).frames
    records = Records()
    for frame in first:
        records.add(frame)
    spool = Spool(len(data))
    with contextlib.closing(spool):
        await spool.append(data)
        async with ClipRedecoder(SpooledClip(spool, records, 32, VideoLimits()), 30) as redecoder:
            found = await take(redecoder, 5)
            began_at_start = redecoder.is_from_start
            process = redecoder.pid
            records.other = 35
            with pytest.raises(DataLoss, match="frame 35 of the video is not the same when it is decoded again"):
                await take(redecoder, 1)
            assert (began_at_start, redecoder.is_from_start) == (False, True)
            assert redecoder.pid != process
            assert not is_running(process)
        assert_same(found, first[30:35])


async def test_leaving_it_ends_its_process() -> None:
    async with decoded(make_clip(frames=FRAMES, codec_options=X264, gop=10)) as (source, _):
        async with source.redecode(30) as redecoder:
            process = redecoder.pid
            waiting = asyncio.ensure_future(take(redecoder, 3))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert is_running(process)
        assert not is_running(process)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
