"""Frames that the client looks at: encoded while nothing else is asked for, the newest one only, without an answer."""

from __future__ import annotations

import pytest

from masklet.errors import ResourceExhausted, Unavailable
from masklet_server.engine.serving.jobs import ApplyPrompt, EncodeFrame, FrameJob
from masklet_server.session import events, replies
from masklet_server.session.events import Prepare, Propagate, Reset
from tests.support.fakes import FakeEngine
from tests.support.session import ON_REQUEST, Talk, answers, click, propagated, talk, video


def prepared(client: Talk) -> list[int]:
    """The frames that the engine was asked to encode beforehand, in order."""
    return [job.frame.index for job in client.engine.jobs if isinstance(job, EncodeFrame)]


def work(client: Talk) -> list[tuple[type[FrameJob], int]]:
    """What the engine was asked for, in order."""
    return [(type(job), job.frame.index) for job in client.engine.jobs]


async def test_a_frame_that_is_looked_at_is_encoded_and_nothing_is_said() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(5), Prepare(3))
        await client.until(lambda: prepared(client))
        await client.quiet()
        assert work(client) == [(EncodeFrame, 3)]
        assert {type(response) for response in client.responses} == {replies.Opened, replies.Described}
        client.half_close()
        await client.end()


async def test_the_client_is_told_that_it_may_prepare() -> None:
    async with talk(ON_REQUEST) as on_request, talk() as automatic:
        await on_request.until(lambda: on_request.all(replies.Opened))
        await automatic.until(lambda: automatic.all(replies.Opened))
        assert on_request.all(replies.Opened)[0].can_prepare
        assert not automatic.all(replies.Opened)[0].can_prepare


async def test_the_newest_takes_the_place_of_those_that_are_not_begun() -> None:
    async with talk(ON_REQUEST) as client:
        client.engine.open_gate.clear()
        client.say(*video(9), Prepare(1))
        await client.until(lambda: prepared(client) == [1])
        client.say(*(Prepare(index) for index in (2, 3, 4, 5, 6)))
        await client.quiet()
        assert prepared(client) == [1], "one at a time"
        client.engine.open_gate.set()
        await client.until(lambda: len(prepared(client)) == 2)
        await client.quiet()
        assert prepared(client) == [1, 6]


async def test_a_flood_while_requests_are_worked_on_costs_one_frame() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(9), click())
        await answers(client, 1)
        client.engine.open_gate.clear()
        client.say(Propagate(), *(Prepare(index % 9) for index in range(5000)))
        await client.until(lambda: client.engine.running)
        await client.quiet()
        assert prepared(client) == []
        client.engine.open_gate.set()
        await propagated(client)
        await client.until(lambda: prepared(client))
        await client.quiet()
        assert prepared(client) == [4999 % 9]


async def test_a_request_goes_first_and_does_not_wait_for_the_preparation() -> None:
    async with talk(ON_REQUEST) as client:
        client.engine.open_gate.clear()
        client.say(*video(9), Prepare(7))
        await client.until(lambda: prepared(client) == [7])
        client.say(click(1, 2))
        await client.until(lambda: len(client.engine.jobs) == 2)
        assert client.engine.running == 1, "nobody waits for the preparation any more"
        client.engine.open_gate.set()
        await client.until(lambda: len(client.engine.jobs) == 3)
        assert work(client) == [(EncodeFrame, 7), (ApplyPrompt, 2), (EncodeFrame, 7)]
        assert [result.frame_index for result in client.all(replies.PromptResult)] == [2]


async def test_a_request_that_waits_already_is_done_before() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(Prepare(1), click(1, 2), click(2, 2), *video(5))
        await answers(client, 2)
        await client.until(lambda: prepared(client))
        assert work(client) == [(ApplyPrompt, 2), (ApplyPrompt, 2), (EncodeFrame, 1)]


async def test_a_frame_that_is_not_decoded_yet_is_waited_for_and_holds_up_nothing() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(events.VideoChunk(bytes(18)), Prepare(25))
        await client.taken(18)
        client.say(click(1, 2), Reset())
        await answers(client, 1)
        assert prepared(client) == []
        client.say(Prepare(3))  # takes the place of the one that waits
        await client.until(lambda: prepared(client) == [3])
        client.say(Prepare(25), events.VideoChunk(bytes(12)), events.EndOfVideo())
        await client.until(lambda: prepared(client) == [3, 25])


async def test_a_frame_that_the_video_does_not_have_is_ignored() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(5), Prepare(5), Prepare(2**32 - 1))
        await client.until(lambda: len(client.all(replies.Described)) == 2)
        client.say(click(1, 4), Prepare(4))
        await client.until(lambda: prepared(client) == [4])
        assert client.problems == []


async def test_a_preparation_that_the_engine_refuses_is_left_to_the_prompt() -> None:
    engine = FakeEngine()
    engine.refuse = lambda job: ResourceExhausted("no memory") if isinstance(job, EncodeFrame) else None
    async with talk(ON_REQUEST, engine=engine) as client:
        client.say(*video(5), Prepare(1))
        await client.until(lambda: prepared(client) == [1])
        client.say(click(1, 1))
        await answers(client, 1)
        assert client.problems == []


async def test_an_engine_that_has_failed_ends_the_session() -> None:
    engine = FakeEngine()
    engine.refuse = lambda job: Unavailable("the engine has failed") if isinstance(job, EncodeFrame) else None
    async with talk(ON_REQUEST, engine=engine) as client:
        client.say(*video(5), Prepare(1))
        with pytest.raises(Unavailable, match="the engine has failed"):
            await client.end()


async def test_a_preparation_keeps_no_session_alive_after_its_last_request() -> None:
    async with talk(ON_REQUEST) as client:
        client.engine.open_gate.clear()
        client.say(*video(5), Prepare(1))
        await client.until(lambda: prepared(client) == [1])
        client.half_close()
        await client.end()
        assert client.responses[-1] == replies.Done(5)
        assert client.engine.running == 0
