"""Events in a session's results, and the memory policy on its way to the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from masklet.errors import InvalidArgument
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.serving.jobs import FrameJob, ObjectOutput
from masklet_server.masks.runs import Runs
from masklet_server.session import events, replies
from masklet_server.session.replies import ObjectEvent
from tests.support.fakes import HEIGHT, WIDTH, FakeEngine, prompts_in
from tests.support.session import Talk, click, talk, video


def hidden_on(frames: range, *, bank: int = 0, edge: bool = False) -> Callable[[FrameJob, int], ObjectOutput]:
    """The looks of objects of which one is hidden on some frames."""

    def looks(job: FrameJob, number: int) -> ObjectOutput:
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        if number == bank and job.frame.index in frames:
            return ObjectOutput(Runs.of(mask), 0.1, -5.0)
        mask[10:20, (WIDTH - 10 if edge else 20) : (WIDTH if edge else 30)] = True
        return ObjectOutput(Runs.of(mask), 0.9, 5.0)

    return looks


def told(client: Talk) -> dict[tuple[int, int], ObjectEvent]:
    """Events by frame and object."""
    return {
        (result.frame_index, one.object_id): one.event
        for result in client.all(replies.FrameResult)
        for one in result.objects
        if one.event is not None
    }


async def run(looks: Callable[[FrameJob, int], ObjectOutput], *said: events.Event, frames: int = 20) -> Talk:
    engine = FakeEngine()
    engine.looks = looks
    async with talk(engine=engine) as client:
        client.say(*(said or [click(1)]), *video(frames))
        await client.end()
        return client


async def test_an_object_is_lost_and_found() -> None:
    assert told(await run(hidden_on(range(5, 12)))) == {
        (7, 1): ObjectEvent.LOST,
        (14, 1): ObjectEvent.REACQUIRED,
    }


async def test_an_object_that_leaves_is_out_of_view() -> None:
    assert told(await run(hidden_on(range(5, 30), edge=True))) == {(7, 1): ObjectEvent.OUT_OF_VIEW}


async def test_flicker_makes_no_events() -> None:
    hidden = hidden_on(range(0, 20, 2))
    assert told(await run(hidden)) == {}


async def test_each_object_has_its_own_events() -> None:
    # The bank made first is that of object 2, prompted first.
    assert told(await run(hidden_on(range(5, 12)), click(2), click(1))) == {
        (7, 2): ObjectEvent.LOST,
        (14, 2): ObjectEvent.REACQUIRED,
    }


async def test_prompt_results_carry_no_event() -> None:
    client = await run(hidden_on(range(20)), click(1), click(1, 6))
    assert [result.object.event for result in client.all(replies.PromptResult)] == [None, None]
    assert told(client) == {(2, 1): ObjectEvent.LOST}


async def test_an_id_that_is_used_again_starts_as_seen() -> None:
    engine = FakeEngine()
    engine.looks = hidden_on(range(3, 100))  # the first bank's object alone
    async with talk(engine=engine, window=64) as client:
        client.say(click(1), events.VideoChunk(bytes(20)))
        await client.frames(20)
        client.say(events.RemoveObject(1), click(1, 22), *video(10))
        await client.end()
        assert told(client) == {(5, 1): ObjectEvent.LOST}


@pytest.mark.parametrize("policy", MemoryPolicy)
async def test_every_bank_gets_the_sessions_memory_policy(policy: MemoryPolicy) -> None:
    async with talk(events.Configure(memory_policy=policy)) as client:
        client.say(click(1), click(2, 3), *video(6))
        await client.end()
        assert client.engine.policies == [policy] * 2


async def test_a_prompt_is_tried_with_the_sessions_memory_policy() -> None:
    engine = FakeEngine()
    engine.refuse = lambda job: (
        InvalidArgument.of("mask", "is too small")
        if any(p.point_coords is not None and p.point_coords[0, 0] == 7 for p in prompts_in(job))
        else None
    )
    config = events.Configure(memory_policy=MemoryPolicy.MOTION_AWARE)
    async with talk(config, engine=engine) as client:
        client.say(click(1, xy=(7, 7)), click(2), *video(2))
        await client.end()
        assert set(engine.policies) == {MemoryPolicy.MOTION_AWARE}
        assert len(engine.policies) > 2, "those that prompts were tried on too"
