"""Uploads: decoded while they arrive, whole, cut off, and too large."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from masklet.errors import Cancelled, DataLoss, FailedPrecondition, ResourceExhausted
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sources.clip import ClipSource
from tests.support.clips import decode_clip, make_clip, take_all

FAST = {"preset": "ultrafast", "qp": "30"}
QUICK = {"deadline": "realtime", "cpu-used": "8"}
STREAMABLE: dict[str, dict[str, Any]] = {
    "faststart": {"options": {"movflags": "faststart"}},
    "fragmented": {"options": {"movflags": "frag_keyframe+empty_moov"}, "gop": 10},
    "matroska": {"container": "matroska"},
    "webm": {"container": "webm", "codec": "libvpx", "bit_rate": 4_000_000, "codec_options": QUICK},
    "transport stream": {"container": "mpegts"},
}


def noisy_clip(container: str = "mp4", frames: int = 80, **properties: Any) -> bytes:
    """A clip of some hundred kilobytes, so that a part of it is more than FFmpeg reads ahead."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (120, 160, 3), dtype=np.uint8) for _ in range(frames)]
    if properties.get("codec", "libx264") == "libx264":
        properties = {"codec_options": FAST, **properties}
    return make_clip(container, pictures=pictures, size=(160, 120), **properties)


@pytest.mark.parametrize("kind", STREAMABLE)
async def test_frames_come_before_the_upload_is_complete(kind: str) -> None:
    data = noisy_clip(**STREAMABLE[kind])
    half = len(data) // 2
    async with ClipSource(16, VideoLimits()) as source:
        await source.feed(data[:half])
        first = await asyncio.wait_for(source.next_frame(), 30)
        assert first is not None
        await source.feed(data[half:])
        await source.end()
        rest = await take_all(source)
    assert rest.error is None
    assert [frame.index for frame in (first, *rest.frames)] == list(range(80))


async def test_a_frame_that_is_ready_does_not_wait_for_more_bytes() -> None:
    data = noisy_clip("mpegts", codec_options={**FAST, "tune": "zerolatency"})
    async with ClipSource(16, VideoLimits(), frames_ahead=32) as source:
        await source.feed(data[: len(data) // 2])
        for _ in range(10):
            assert await asyncio.wait_for(source.next_frame(), 30) is not None


async def test_an_index_at_the_end_is_waited_for() -> None:
    data = noisy_clip()
    async with ClipSource(16, VideoLimits()) as source:
        await source.feed(data[:-100])
        waiting = asyncio.ensure_future(source.info())
        done, _ = await asyncio.wait({waiting}, timeout=0.7)
        assert not done
        await source.feed(data[-100:])
        await source.end()
        assert (await waiting).frame_count == 80
        assert len((await take_all(source)).frames) == 80


async def test_byte_by_byte() -> None:
    data = make_clip(frames=3)
    outcome = await decode_clip(data, chunk=1)
    assert outcome.error is None
    assert len(outcome.frames) == 3


async def test_decoding_does_not_run_further_ahead_than_asked() -> None:
    async with ClipSource(16, VideoLimits(), frames_ahead=2) as source:
        await source.feed(make_clip("mpegts", frames=60))
        await source.end()
        await source.info()
        await asyncio.sleep(0.5)
        outcome = await take_all(source)
    assert outcome.error is None
    assert len(outcome.frames) == 60


@pytest.mark.parametrize("kind", [kind for kind in STREAMABLE if kind != "transport stream"])
@pytest.mark.slow
async def test_cut_off_file_gives_what_it_has_and_then_an_error(kind: str) -> None:
    data = noisy_clip(**STREAMABLE[kind])
    outcome = await decode_clip(data[: len(data) * 6 // 10 + 7])
    assert 5 < len(outcome.frames) < 80
    assert isinstance(outcome.error, DataLoss)
    assert f"breaks off after {len(outcome.frames)} frames" in outcome.error.message


@pytest.mark.parametrize("missing", [0, 100, 188 * 3 + 95])
async def test_a_transport_stream_has_no_length_and_so_no_missing_part(missing: int) -> None:
    data = noisy_clip("mpegts", frames=20)
    outcome = await decode_clip(data[: len(data) - missing])
    assert outcome.error is None
    assert len(outcome.frames) == 20


async def test_cut_off_before_the_index_there_is_nothing() -> None:
    data = noisy_clip()
    outcome = await decode_clip(data[: len(data) // 2])
    assert isinstance(outcome.error, DataLoss)
    assert outcome.frames == []


async def test_damage_in_the_middle_is_skipped() -> None:
    data = bytearray(noisy_clip("mpegts", gop=10))
    middle = len(data) // 2 // 188 * 188
    data[middle + 20 : middle + 180] = bytes(160)
    outcome = await decode_clip(bytes(data))
    assert outcome.error is None
    assert len(outcome.frames) >= 75
    assert outcome.frames[-1].pts == (await decode_clip(noisy_clip("mpegts", gop=10))).frames[-1].pts


async def test_the_end_is_repeated() -> None:
    async with ClipSource(16, VideoLimits()) as source:
        await source.feed(make_clip(frames=1))
        await source.end()
        await source.end()
        assert await source.next_frame() is not None
        assert await source.next_frame() is None
        assert await source.next_frame() is None
        assert (await source.info()).frame_count == 1
        with pytest.raises(FailedPrecondition, match="video_chunk: came after end_of_video"):
            await source.feed(b"more")
    assert await source.next_frame() is None


async def test_upload_beyond_the_limit() -> None:
    async with ClipSource(16, VideoLimits(max_upload_bytes=1000)) as source:
        await source.feed(bytes(600))
        with pytest.raises(ResourceExhausted, match="max_upload_bytes = 1000"):
            await source.feed(bytes(600))


async def test_feeding_after_the_decoder_has_ended_does_nothing() -> None:
    async with ClipSource(16, VideoLimits()) as source:
        await source.feed(b"no video at all " * 5000)
        await source.end()
        with pytest.raises(DataLoss):
            await source.info()
    async with ClipSource(16, VideoLimits(max_frames=2)) as source:
        data = noisy_clip("mpegts")
        await source.feed(data[: len(data) // 2])
        outcome = await take_all(source)
        assert isinstance(outcome.error, ResourceExhausted)
        for _ in range(20):
            await source.feed(data[len(data) // 2 :])
        await source.end()
        with pytest.raises(ResourceExhausted):
            await source.next_frame()


async def test_leaving_ends_a_wait_for_a_frame() -> None:
    source = ClipSource(16, VideoLimits())
    async with source:
        waiting = asyncio.ensure_future(source.next_frame())
        await asyncio.sleep(0.05)
    with pytest.raises(Cancelled):
        await waiting


async def test_cancelling_next_frame_loses_no_frame() -> None:
    data = noisy_clip("mpegts", frames=20)
    indices = []
    async with ClipSource(16, VideoLimits()) as source:
        for start in range(0, len(data), 20_000):
            await source.feed(data[start : start + 20_000])
            try:
                while (frame := await asyncio.wait_for(source.next_frame(), 0.03)) is not None:
                    indices.append(frame.index)
            except asyncio.TimeoutError:
                continue
        await source.end()
        indices += [frame.index for frame in (await take_all(source)).frames]
    assert indices == list(range(20))


@pytest.mark.slow
async def test_many_small_chunks_are_taken_while_no_frame_is() -> None:
    data = noisy_clip("matroska", frames=200)
    pieces = [data[i : i + 64] for i in range(0, len(data), 64)]
    assert len(pieces) > 10_000
    async with ClipSource(16, VideoLimits(), frames_ahead=1) as source:
        for piece in pieces:
            await asyncio.wait_for(source.feed(piece), 60)
        await source.end()
        assert len((await asyncio.wait_for(take_all(source), 120)).frames) == 200
