"""The look ahead that tells a short clip from a long one."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from masklet.errors import DataLoss, Unavailable
from masklet_server.session import events, replies
from masklet_server.session.automatic import frame_reader
from masklet_server.session.automatic.frame_reader import FrameReader, ReaderOptions
from masklet_server.session.idle import IdleWatch
from masklet_server.video.picture import Picture
from tests.support.fake_sources import BROKEN, LOST, FakeClip
from tests.support.fakes import FakeEngine, upcoming
from tests.support.session import click, ids, talk, video


async def reader_of(frames: int, frame_count: int = 0) -> tuple[FrameReader, FakeClip]:
    source = FakeClip(16)
    await source.feed(bytes(frames))
    await source.end()
    return FrameReader(source, IdleWatch(60), ReaderOptions(frame_count=frame_count)), source


@pytest.mark.parametrize(("frames", "length"), [(1, 1), (2, 2), (15, 15), (16, None), (17, None), (40, None)])
@pytest.mark.parametrize("taken", [0, 1])
async def test_a_clip_of_fewer_than_sixteen_frames_tells_its_length(
    frames: int, length: int | None, taken: int
) -> None:
    reader, source = await reader_of(frames)
    for _ in range(taken):
        await reader.next()
    assert await reader.clip_length() == length
    assert await reader.clip_length() == length
    assert source.taken == min(frames, 16), "it looks no further than it must"
    indices = []
    while (frame := await reader.next()) is not None:
        indices.append(frame.index)
    assert indices == list(range(taken, frames)), "what was seen ahead is not lost"
    assert reader.taken == frames
    assert await reader.next() is None


@pytest.mark.parametrize("frames", [1, 5, 15])
async def test_a_clip_whose_decoder_dies_is_not_taken_for_a_short_one(frames: int) -> None:
    """Its masks would be others than those of the next try, which may find all frames."""
    source = FakeClip(16)
    await source.feed(bytes(frames) + bytes([LOST]))
    reader = FrameReader(source, IdleWatch(60))
    await reader.next()
    with pytest.raises(Unavailable, match="the decoding process was lost"):
        await reader.clip_length()


@pytest.mark.parametrize(("frames", "length"), [(1, 1), (15, 15), (16, None)])
async def test_the_frames_before_a_broken_one_are_a_clip(frames: int, length: int | None) -> None:
    source = FakeClip(16)
    await source.feed(bytes(frames) + bytes([BROKEN]))
    reader = FrameReader(source, IdleWatch(60))
    assert await reader.clip_length() == length


async def test_a_count_from_the_client_spares_the_look_ahead() -> None:
    for promised, length in ((5, 5), (16, None), (100, None)):
        reader, source = await reader_of(40, promised)
        assert await reader.clip_length() == length
        assert source.taken == 0


@pytest.mark.parametrize(
    ("promised", "frames", "broken"), [(0, 3, False), (3, 3, False), (4, 3, True), (100, 40, False), (100, 3, True)]
)
async def test_a_wrong_count_is_noticed_where_it_matters(promised: int, frames: int, broken: bool) -> None:
    reader, _ = await reader_of(frames, promised)
    while await reader.next() is not None:
        pass
    assert reader.is_frame_count_wrong() is broken


@pytest.mark.parametrize(("frames", "length"), [(1, 1), (2, 2), (15, 15), (16, None), (17, None)])
async def test_every_job_of_a_session_knows_the_clips_length(frames: int, length: int | None) -> None:
    async with talk() as client:
        client.say(click(), *video(frames))
        await client.end()
        assert [job.frame.clip_length for job in client.engine.jobs] == [length] * frames


async def test_nothing_is_tracked_before_the_length_is_known() -> None:
    async with talk() as client:
        client.say(click(), events.VideoChunk(bytes(15)))
        await client.taken(15)
        await client.quiet()
        assert client.engine.jobs == []
        client.say(events.VideoChunk(bytes(1)))
        await client.frames(16)
        assert client.engine.jobs[0].frame.clip_length is None


async def test_prompts_are_in_time_while_the_session_looks_ahead() -> None:
    async with talk() as client:
        client.say(click(1), events.VideoChunk(bytes(3)))
        await client.taken(3)
        client.say(click(2), *video(1))
        await client.end()
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1, 2]] * 4


async def test_a_stream_whose_length_is_told_starts_at_once() -> None:
    async with talk(events.Configure(frame_count=16)) as client:
        client.say(click(), events.VideoChunk(bytes(1)))
        await client.frames(1)
        assert client.engine.jobs[0].frame.clip_length is None


async def test_a_wrong_count_is_answered_at_the_end() -> None:
    async with talk(events.Configure(frame_count=5)) as client:
        client.say(click(), *video(4))
        await client.end()
        assert [job.frame.clip_length for job in client.engine.jobs] == [5] * 4
        (problem,) = client.problems
        assert problem.startswith("config.frame_count: is 5, but the video had 4 frames")


@pytest.mark.parametrize("prompted", [0, 3, 15])
async def test_pictures_sent_as_far_as_the_look_ahead_are_read_before_the_first_result(prompted: int) -> None:
    async with talk(window=1) as client:
        picture = events.NextPicture(Picture("encoded", b"x"))
        client.say(click(1, prompted), *[picture] * 16)
        for count in range(1, 25):
            results = await client.frames(count)
            client.say(events.Ack(results[-1].sequence))
            if count >= 16:  # from now on as far ahead as the window
                client.say(picture)
        assert [ids(result) for result in results] == [[]] * prompted + [[1]] * (24 - prompted)


async def test_a_promise_of_too_few_frames_is_not_believed_any_longer() -> None:
    reader, _ = await reader_of(20, 1)
    lengths = []
    while await reader.next() is not None:
        lengths.append(await reader.clip_length())
    assert lengths == [*range(1, 16), *[None] * 5]


async def test_waiting_for_a_frame_may_be_cancelled_and_begun_again() -> None:
    source = FakeClip(16)
    reader = FrameReader(source, IdleWatch(60))
    async with reader.running():
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.ready(), 0.01)
        await source.feed(bytes(2))
        await source.end()
        frames = [await reader.next() for _ in range(3)]
        assert [None if frame is None else frame.index for frame in frames] == [0, 1, None]
        assert reader.at_end


async def test_a_fault_met_while_nobody_waits_is_raised_to_who_waits_next() -> None:
    source = FakeClip(16)
    reader = FrameReader(source, IdleWatch(60), ReaderOptions(look_ahead=3))
    async with reader.running():
        await source.feed(bytes([0, BROKEN]))
        assert await reader.ready()
        for _ in range(10):
            await asyncio.sleep(0)  # the fault is met here
        assert reader.take().frame.index == 0
        for _ in range(2):
            with pytest.raises(DataLoss, match="broken"):
                await reader.ready()


async def test_a_series_of_pictures_that_pauses_counts_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_reader, "PAUSE_SECONDS", 0.05)
    source = FakeClip(16)
    await source.feed(bytes(3))
    reader = FrameReader(source, IdleWatch(60))
    async with reader.running():
        assert await asyncio.wait_for(reader.clip_length(), 10) is None
        assert reader.frame_count == 0, "nothing is taken by looking"
        await source.end()
        assert await reader.clip_length() is None, "what was said of one frame holds for all"


async def test_a_file_that_pauses_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_reader, "PAUSE_SECONDS", 0.05)
    source = FakeClip(16)
    await source.feed(bytes(3))
    reader = FrameReader(source, IdleWatch(60), ReaderOptions(is_file=True))
    async with reader.running():
        length = asyncio.create_task(reader.clip_length())
        await asyncio.sleep(0.2)
        assert not length.done()
        await source.end()
        assert await asyncio.wait_for(length, 10) == 3


@pytest.mark.parametrize(("is_file", "seen"), [(True, 1), (False, None)])
async def test_only_a_files_next_frame_is_waited_for(is_file: bool, seen: int | None) -> None:
    source = FakeClip(16)
    await source.feed(bytes(3))
    reader = FrameReader(source, IdleWatch(60), ReaderOptions(is_file=is_file))
    async with reader.running():
        await reader.next()
        frame = await reader.peek()
        assert (None if frame is None else frame.index) == seen


# Frames that are there before they are wanted


async def test_as_many_frames_are_read_as_are_encoded_together() -> None:
    source = FakeClip(16)
    await source.feed(bytes(9))
    reader = FrameReader(source, IdleWatch(60), ReaderOptions(look_ahead=3))
    async with reader.running():
        assert await reader.ready()
        assert reader.take().frame.index == 0
        for _ in range(50):
            await asyncio.sleep(0)
        assert source.taken == 4
        assert [frame.index for frame in reader.upcoming] == [1, 2, 3]
        assert reader.take().frame.index == 1
        assert [frame.index for frame in reader.upcoming] == [2, 3], "as far as they are there"


async def test_a_slow_source_keeps_nobody_waiting_for_more_than_the_next_frame() -> None:
    source = FakeClip(16)
    reader = FrameReader(source, IdleWatch(60), ReaderOptions(look_ahead=3))
    async with reader.running():
        for index in range(5):
            await source.feed(bytes(1))
            assert await asyncio.wait_for(reader.ready(), 10)
            assert reader.take().frame.index == index
            assert reader.upcoming == []
        await source.end()
        assert not await asyncio.wait_for(reader.ready(), 10)


@pytest.mark.parametrize(("deterministic", "encode_ahead"), [(False, 4), (True, 4), (False, 1)])
async def test_the_engine_gets_the_next_frames(deterministic: bool, encode_ahead: int) -> None:
    engine = FakeEngine()
    engine.models["fake"] = dataclasses.replace(engine.models["fake"], encode_ahead=encode_ahead)
    async with talk(events.Configure(deterministic=deterministic), engine=engine) as client:
        client.say(click(), events.VideoChunk(bytes(range(20))), events.EndOfVideo())
        await client.end()
    told = [upcoming(job) for job in engine.jobs]
    assert len(told) == 20
    if deterministic or encode_ahead == 1:
        assert told == [[]] * 20
    else:
        assert told[0] == [1, 2, 3], "four in one pass"
        assert all(pictures == list(range(i + 1, i + 1 + len(pictures))) for i, pictures in enumerate(told))
        assert sum(map(len, told)) > 40
    assert len({id(job.stream.recent) for job in engine.jobs}) == 1
