"""Clips that are damaged, cut, or odd: what comes out of the decoding process, and what is told of the rest."""

from __future__ import annotations

import io

import av
import pytest

from masklet.errors import DataLoss, ResourceExhausted
from masklet_server.video.limits import VideoLimits
from masklet_server.video.sources.clip import ClipSource
from tests.support.cases import case
from tests.support.clips import decode_clip, make_clip, take_all


def damaged(data: bytes, packets: range) -> bytes:
    """The same Matroska file with some packets that cannot be decoded; it does not say how many frames it has."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(file, "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(one for one in source.demux(video=0) if one.size):
            packet.stream = stream
            if index in packets:
                packet.update(bytes(packet.size))
            target.mux(packet)
    return file.getvalue()


STEPS = [index * 40_000_000 for index in range(32)]


@pytest.mark.parametrize("name", [
    "disc.mp4", "trailing_newline.mp4", "trailing_camera_block.mp4", "bframes.avi", "animated.apng",
])  # fmt: skip
@pytest.mark.parametrize("chunk", [1000, 2**20])
async def test_every_frame_comes_at_its_time_and_no_error_follows(name: str, chunk: int) -> None:
    outcome = await decode_clip(case(name), chunk=chunk)
    assert outcome.error is None
    assert [frame.pts_nanoseconds for frame in outcome.frames] == STEPS[:16]
    assert not any(frame.undecoded for frame in outcome.frames)


async def test_two_recordings_one_after_the_other() -> None:
    outcome = await decode_clip(case("joined.ts"))
    assert outcome.error is None
    first = outcome.frames[0].pts_nanoseconds
    assert [frame.pts_nanoseconds - first for frame in outcome.frames] == STEPS


async def test_frames_that_cannot_be_decoded_are_named() -> None:
    data = case("damaged_av1.mp4")
    async with ClipSource(32, VideoLimits()) as source:
        await source.feed(data)
        await source.end()
        outcome = await take_all(source)
        behind = source.undecoded_at_end
    assert outcome.error is None
    assert [frame.index for frame in outcome.frames] == [0, 1, 2, 3, 4]
    assert [[time // 10**6 for time in frame.undecoded_nanoseconds] for frame in outcome.frames] == [
        [], [40, 80, 120], [200, 240, 280], [360], [440],
    ]  # fmt: skip
    assert [time // 10**6 for time in behind] == [520, 560, 600]


async def test_frames_that_cannot_be_decoded_count_as_frames() -> None:
    data = damaged(make_clip("matroska", "mpeg4", frames=12, gop=1), range(3, 8))
    whole = await decode_clip(data, limits=VideoLimits(max_frames=12))
    assert (len(whole.frames), whole.error) == (7, None)
    assert len(whole.frames[3].undecoded) == 5
    for most, frames in ((11, 6), (7, 3)):
        outcome = await decode_clip(data, limits=VideoLimits(max_frames=most))
        assert isinstance(outcome.error, ResourceExhausted)
        assert f"max_frames is {most}" in outcome.error.message
        assert len(outcome.frames) == frames


async def test_an_mp4_whose_last_frames_are_missing_breaks_off() -> None:
    data = make_clip(options={"movflags": "faststart"}, codec="mpeg4", frames=20, gop=1)
    outcome = await decode_clip(data[: len(data) * 3 // 4])
    assert 5 < len(outcome.frames) < 20
    assert isinstance(outcome.error, DataLoss)
    assert f"the video breaks off after {len(outcome.frames)} frames: " in outcome.error.message


async def test_an_avi_with_a_wrong_size_is_whole() -> None:
    data = bytearray(make_clip("avi", "mpeg4"))
    data[4:8] = (2**31 - 1).to_bytes(4, "little")
    outcome = await decode_clip(bytes(data))
    assert outcome.error is None
    assert len(outcome.frames) == 10
