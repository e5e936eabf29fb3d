"""Where a frame's time went: collected from decoder, engine, mask threads and the network, and only if asked for."""

from __future__ import annotations

import asyncio
from dataclasses import astuple, replace

import pytest

from masklet_server.engine.serving.jobs import FrameJob, FrameOutput, TrackingJob
from masklet_server.rpc import to_wire
from masklet_server.session import events, replies
from tests.support.fakes import FakeEngine
from tests.support.session import click, talk, video

ASKED = events.Configure(timings=True)


class TimedEngine(FakeEngine):
    """Says that its work took so and so long, different on each frame."""

    async def run(self, job: TrackingJob) -> FrameOutput:
        assert isinstance(job, FrameJob)
        output, i = await super().run(job), job.frame.index
        return replace(output, queue_seconds=1.0 + i, encode_seconds=2.0 + i, step_seconds=3.0 + i)


async def test_each_result_tells_its_own_times() -> None:
    async with talk(ASKED, engine=TimedEngine()) as client:
        client.say(click(), *video(3))
        await client.end()
        for i, result in enumerate(client.all(replies.FrameResult)):
            assert result.timings is not None
            assert (result.timings.queue, result.timings.encode, result.timings.step) == (1.0 + i, 2.0 + i, 3.0 + i)
            assert 0 < result.timings.mask < 5


async def test_sending_is_told_by_the_next_result() -> None:
    async with talk(replace(ASKED, frame_count=3)) as client:  # which spares the look ahead
        client.say(click(), *video(1)[:1])
        (first,) = await client.frames(1)
        client.reading.clear()
        client.say(*video(2)[:1])
        await client.taken(3)
        await asyncio.sleep(0.05)
        client.reading.set()
        client.say(events.EndOfVideo())
        await client.end()
        results = client.all(replies.FrameResult)
        sent = [result.timings.send for result in results if result.timings is not None]
        assert first.timings is not None
        assert sent[0] == 0
        assert sent[1] < 0.05 <= sent[2]


async def test_frames_without_objects_cost_nothing_on_the_device() -> None:
    async with talk(ASKED, engine=TimedEngine()) as client:
        client.say(click(frame_index=1), *video(2))
        await client.end()
        before, after = (result.timings for result in client.all(replies.FrameResult))
        assert before is not None
        assert after is not None
        assert (before.queue, before.encode, before.step) == (0, 0, 0)
        assert after.encode == 3.0


async def test_nobody_is_told_unasked() -> None:
    async with talk(engine=TimedEngine()) as client:
        client.say(click(), *video(2))
        await client.end()
        assert [result.timings for result in client.all(replies.FrameResult)] == [None, None]
        assert not to_wire.response(client.all(replies.FrameResult)[0]).frame_result.HasField("timings")


async def test_on_the_wire() -> None:
    times = replies.Timings(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    async with talk(ASKED) as client:
        client.say(click(), *video(1))
        await client.end()
        result = replace(client.all(replies.FrameResult)[0], timings=times)
        message = to_wire.response(result).frame_result.timings
    assert [getattr(message, name) for name in ("decode", "queue", "encode", "step", "mask", "send")] == pytest.approx(
        astuple(times)
    )
