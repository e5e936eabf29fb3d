"""How a session ends: by faults, by standing still, and by a client that goes away. Everything is freed each time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from masklet.errors import (
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MaskletError,
    ResourceExhausted,
)
from masklet_server.session import events, replies
from masklet_server.session.state import State
from masklet_server.video.picture import Picture
from tests.support.fake_sources import BROKEN
from tests.support.fakes import FakeEngine
from tests.support.session import Talk, click, talk, video

PICTURE = events.NextPicture(Picture("encoded", b"x"))


# Faults that end the stream

FATAL: dict[str, tuple[list[events.Event], type[MaskletError], str]] = {
    "two configs": ([events.Configure()], FailedPrecondition, "config came twice"),
    "two configs later": ([events.VideoChunk(bytes(2)), events.Configure()], FailedPrecondition, "config came twice"),
    "chunk after the end": ([*video(1), events.VideoChunk(b"1")], FailedPrecondition, "after end_of_video"),
    "frame after the end": ([PICTURE, events.EndOfVideo(), PICTURE], FailedPrecondition, "after end_of_video"),
    "two ends": ([*video(1), events.EndOfVideo()], FailedPrecondition, "end_of_video came twice"),
    "frame after chunk": ([events.VideoChunk(b"1"), PICTURE], InvalidArgument, "frame: cannot follow video_chunk"),
    "chunk after frame": ([PICTURE, events.VideoChunk(b"1")], InvalidArgument, "video_chunk: cannot follow frame"),
    "no video": ([events.EndOfVideo()], DataLoss, "the video is empty"),
    "no bytes": ([events.VideoChunk(b""), events.EndOfVideo()], DataLoss, "no frame could be decoded"),
    "broken at once": ([events.VideoChunk(bytes([BROKEN]))], DataLoss, "a frame is broken"),
    "cancel": ([events.VideoChunk(bytes(2)), events.Cancel()], Cancelled, "the client asked to cancel"),
}


@pytest.mark.parametrize("case", FATAL)
async def test_what_cannot_be_mended_ends_the_stream_and_frees_everything(case: str) -> None:
    said, kind, message = FATAL[case]
    engine = FakeEngine()
    engine.open_gate.clear()  # the first frame stays under way, so that no session is done before its fault
    async with talk(engine=engine) as client:
        client.say(click(), *said)
        with pytest.raises(kind, match=message):
            await client.end()
        assert client.session.state is State.FAILED
        assert_all_freed(client)


@pytest.mark.parametrize("frames", [2, 20])
async def test_all_frames_before_a_broken_one_are_tracked(frames: int) -> None:
    async with talk() as client:
        client.say(click(), events.VideoChunk(bytes([0] * frames + [BROKEN])))
        with pytest.raises(DataLoss, match="a frame is broken"):
            await client.end()
        assert client.session.state is State.FAILED
        assert [result.frame_index for result in client.all(replies.FrameResult)] == list(range(frames))
        assert_all_freed(client)


@pytest.mark.parametrize("error", [ResourceExhausted("out of memory"), RuntimeError("a bug")])
async def test_an_error_of_the_engine_ends_this_session_with_it(error: Exception) -> None:
    engine = FakeEngine()
    engine.refuse = lambda job: error if job.frame.index == 2 else None
    async with talk(engine=engine) as client:
        client.say(click(), events.VideoChunk(bytes(20)))
        with pytest.raises(type(error), match=str(error)):
            await client.end()
        assert client.session.state is State.FAILED
        assert_all_freed(client)


async def test_one_session_that_fails_leaves_another_untouched() -> None:
    engine = FakeEngine()
    async with talk(engine=engine) as good, talk(engine=engine) as bad:
        engine.refuse = lambda job: ResourceExhausted("no room") if job.stream.id == bad.session.id else None
        for client in (good, bad):
            client.say(click(), *video(20))
        with pytest.raises(ResourceExhausted):
            await bad.end()
        await good.end()
        assert len(good.all(replies.FrameResult)) == 20


# Standing still


@pytest.mark.parametrize(
    ("said", "window", "waits"),
    [
        ([], 4, "the client's messages"),
        ([events.VideoChunk(b"")], 4, "the video's first frame"),
        ([events.VideoChunk(bytes(20))], 64, "the next frame of the video, or end_of_video"),
        ([click(), events.VideoChunk(bytes(2))], 4, "further frames, which tell how long the clip is"),
        ([*video(9)], 4, "an ack, because the window of 4 frame results is full"),
        ([PICTURE] * 40, 4, "an ack, because the window of 4 frame results is full"),
    ],
    ids=["no video", "no frame", "no end", "short clip", "no ack", "pictures before acks"],
)
async def test_a_stream_that_stands_still_ends_and_says_what_it_waited_for(
    said: list[events.Event], window: int, waits: str
) -> None:
    async with talk(idle_timeout_seconds=0.5, window=window) as client:
        client.say(*said)
        with pytest.raises(DeadlineExceeded, match=f"no progress for 0.5 s while waiting for .*{waits}"):
            await client.end()
        assert_all_freed(client)


async def test_a_session_has_a_longest_time() -> None:
    async with talk(max_session_seconds=0.3, window=4) as client:
        client.say(*video(9))
        with pytest.raises(DeadlineExceeded, match="max_session_seconds"):
            await client.end()
        assert_all_freed(client)


async def test_a_client_that_never_reads_is_not_waited_for_for_ever() -> None:
    async with talk(idle_timeout_seconds=0.5) as client:
        client.reading.clear()
        client.say(click(), *video(20))
        with pytest.raises(DeadlineExceeded, match="the client to read its responses"):
            await client.end()


async def test_a_slow_engine_is_not_idleness() -> None:
    engine = FakeEngine()
    engine.open_gate.clear()
    async with talk(engine=engine, idle_timeout_seconds=0.5) as client:
        client.say(click(), *video(3))
        await client.until(lambda: engine.jobs)
        await asyncio.sleep(1.2)
        assert not client.task.done()
        engine.open_gate.set()
        await client.end()


# Going away, in every state


def in_configured(client: Talk) -> bool:
    return client.session.state is State.CONFIGURED and bool(client.responses)


def in_receiving(client: Talk) -> bool:
    return client.session.state is State.RECEIVING and client.source.entered


def with_the_engine(client: Talk) -> bool:
    return client.engine.running == 1


def window_full(client: Talk) -> bool:
    return len(client.all(replies.FrameResult)) == 3


STATES: dict[str, tuple[list[events.Event], bool, Callable[[Talk], bool]]] = {
    "configured": ([click()], True, in_configured),
    "receiving": ([click(), events.VideoChunk(b"")], True, in_receiving),
    "tracking, in the engine": ([click(), events.VideoChunk(bytes(20))], False, with_the_engine),
    "tracking, window full": ([click(), events.VideoChunk(bytes(20))], True, window_full),
    "tracking, feeding": ([click(), *[PICTURE] * 60], True, window_full),
    "looking ahead": (
        [click(), events.VideoChunk(bytes(4))],
        True,
        lambda client: client.session.state is State.TRACKING,
    ),
    "draining, in the engine": ([click(), *video(20)], False, with_the_engine),
    "draining, window full": ([click(), *video(20)], True, window_full),
}


@pytest.mark.parametrize("state", STATES)
async def test_cancelling_frees_everything_within_a_second(state: str) -> None:
    said, gate, reached = STATES[state]
    before = asyncio.all_tasks()
    async with talk(window=3) as client:
        if not gate:
            client.engine.open_gate.clear()
        client.say(*said)
        await client.until(lambda: reached(client))
        client.task.cancel()
        done, _ = await asyncio.wait([client.task], timeout=1)
        assert done
        assert client.task.cancelled()
        assert client.session.state is State.FAILED
        assert_all_freed(client)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("state", [state for state in STATES if "draining" not in state and "feeding" not in state])
async def test_a_client_that_vanishes_before_the_end_frees_everything(state: str) -> None:
    said, gate, reached = STATES[state]
    async with talk(window=3) as client:
        if not gate:
            client.engine.open_gate.clear()
        client.say(*said)
        await client.until(lambda: reached(client))
        client.half_close()
        with pytest.raises(Cancelled, match="went away before end_of_video"):
            await asyncio.wait_for(client.task, 1)
        assert_all_freed(client)


async def test_cancelling_while_the_decoder_starts_leaves_nothing() -> None:
    async with talk() as client:
        client.sources.start = asyncio.Event()
        client.say(events.VideoChunk(b"1"))
        await client.until(lambda: client.sources.made)
        client.task.cancel()
        done, _ = await asyncio.wait([client.task], timeout=1)
        assert done
        assert not client.source.entered
        assert client.engine.forgotten == [client.session.id]


async def test_a_second_cancellation_does_not_stop_the_cleaning() -> None:
    async with talk() as client:
        client.say(click(), events.VideoChunk(bytes(3)))
        await client.until(lambda: client.session.state is State.TRACKING)
        client.task.cancel()
        await asyncio.sleep(0)
        client.task.cancel()
        await asyncio.wait([client.task], timeout=1)
        await client.quiet()
        assert_all_freed(client)


def assert_all_freed(client: Talk) -> None:
    assert all(source.closed for source in client.sources.made)
    assert client.engine.forgotten == [client.session.id]
    assert client.engine.running == 0
    assert not client.automatic.objects
    assert not [task for task in asyncio.all_tasks() if client.session.id in task.get_name()]


async def test_what_was_tracked_before_a_fault_is_sent_before_it() -> None:
    async with talk(events.Configure(frame_count=100)) as client:
        client.say(click(), events.VideoChunk(bytes([*[0] * 20, BROKEN])), events.EndOfVideo())
        with pytest.raises(DataLoss):
            await client.end()
        assert len(client.all(replies.FrameResult)) == 20


async def test_messages_that_cross_a_failure_get_no_answers() -> None:
    engine = FakeEngine()
    async with talk(engine=engine) as client:

        def refuse(job: object) -> Exception | None:
            del job
            return ResourceExhausted("out of memory") if len(client.engine.jobs) > 20 else None

        engine.refuse = refuse
        client.say(click(), events.VideoChunk(bytes(20)))
        await client.frames(20)
        client.reading.clear()
        client.say(events.RemoveObject(99))  # its answer waits for the client, and the failure for the answer
        await client.quiet()
        client.say(events.VideoChunk(bytes(1)))
        await client.until(lambda: client.session.state is State.FAILED)
        client.say(events.Ack(1))
        await client.quiet()
        client.reading.set()
        with pytest.raises(ResourceExhausted, match="out of memory"):
            await client.end()
        assert ["99" in problem for problem in client.problems] == [True]
