"""Sessions that begin anew on a server that knows nothing of them: the client sees what it would have seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from masklet.errors import InvalidArgument, NotFound
from masklet_server.session import events, replies
from masklet_server.session.automatic.operation_gate import MOST_WAITING
from tests.support.resuming import CONFIG, lot
from tests.support.session import click
from tests.support.viewer import FRAMES, PLAN, Viewer


async def undisturbed(config: events.Configure = CONFIG) -> Viewer:
    viewer = Viewer(PLAN, config)
    async with lot() as held:
        await viewer.watch(held)
    return viewer


async def test_the_plan_has_something_of_everything() -> None:
    reference = await undisturbed()
    assert reference.done == replies.Done(FRAMES)
    assert max(one[2] or 0 for one in reference.seen) >= 3
    assert set(reference.problems) == {11}
    assert {*reference.taken, *reference.problems} == set(reference.said), "each has one answer"
    assert [one[0] for one in reference.seen] == list(range(1, len(reference.seen) + 1))
    assert reference.numbers == list(range(1, len(reference.numbers) + 1))


@pytest.mark.parametrize("part", range(4))
async def test_wherever_a_server_dies_the_client_sees_the_same(part: int) -> None:
    reference = await undisturbed()
    for cut in range(1 + part, len(reference.numbers), 4):
        viewer = Viewer(PLAN)
        async with lot() as held:
            await viewer.watch(held, breaks_after=cut)
        async with lot() as another:
            await viewer.watch_on(another)
            assert another.counts.resumes == {"rewound": 1}
        assert viewer.seen == reference.seen, f"cut after {cut}"
        assert viewer.problems == reference.problems
        assert viewer.taken == reference.taken
        assert viewer.done == reference.done
        assert viewer.numbers == list(range(1, len(viewer.numbers) + 1))


async def test_a_server_may_die_again_and_again() -> None:
    reference = await undisturbed()
    viewer = Viewer(PLAN)
    async with lot() as held:
        await viewer.watch(held, breaks_after=5)
    for cut in (9, 10, 11, 30, 31, 50):
        async with lot() as another:
            await viewer.watch_on(another, breaks_after=cut)
    async with lot() as last:
        await viewer.watch_on(last)
    assert viewer.seen == reference.seen
    assert viewer.taken == reference.taken


async def test_nothing_that_the_client_has_is_sent_or_waits_for_an_acknowledgement() -> None:
    viewer = Viewer({0: [click(1)]})
    async with lot() as held:
        await viewer.watch(held, breaks_after=21)
    async with lot() as another:
        call = await viewer.watch_on(another)
        assert not call.all(replies.Described), "the client has it"
        assert not call.all(replies.Problem), "nobody is reminded of acknowledgements"
        assert [one.frame_index for one in call.all(replies.FrameResult)] == list(range(18, FRAMES))
        assert call.all(replies.PromptResult) == []


async def test_a_client_that_has_nothing_gets_everything() -> None:
    viewer = Viewer({0: [click(1)]})
    async with lot() as held:
        call = held.resume(events.Resume("", can_rewind=True, config=viewer.config))
        call.say(replace(click(1), request_id=1), events.VideoChunk(bytes(FRAMES)), events.EndOfVideo())
        await call.frames(1)
        assert call.numbers[:3] == [1, 2, 3]
        assert len(call.all(replies.PromptResult)) == 1
        await call.breaks()
        again = held.again(call)
        await again.until(lambda: again.all(replies.Resumed))
        assert again.resumed.how is replies.Resumption.ATTACHED, "it is a resumable session like any other"


async def test_what_a_client_says_before_the_session_has_caught_up_waits_and_is_bounded() -> None:
    viewer = Viewer({0: [click(1)]})
    async with lot() as held:
        await viewer.watch(held, breaks_after=20)
    async with lot(max_objects=4) as another:
        another.engine.open_gate.clear()
        resume = events.Resume(
            "x",
            20,
            can_rewind=True,
            config=viewer.config,
            replay=events.Replay((), viewer.seen[-1][0], viewer.seen[-1][0]),
        )
        call = another.resume(resume)
        call.say(*[events.RemoveObject(7, request_id=i + 1) for i in range(MOST_WAITING + 2)])
        await call.until(lambda: len(call.all(replies.Problem)) == 2)
        assert "1000 operations wait for the end of a step already" in call.all(replies.Problem)[0].error.message


async def test_a_hundred_operations_within_one_step_are_taken() -> None:
    async with lot(max_objects=4, window=4) as held:
        call = held.begin(replace(CONFIG, frame_count=30))
        call.say(replace(click(1), request_id=1), events.VideoChunk(bytes(4)))
        await call.frames(4)
        held.engine.open_gate.clear()
        call.say(events.Ack(5), events.VideoChunk(bytes(1)))
        operations = [op for i in range(50) for op in (click(2, 20), events.ClearPrompts(2, 20))]
        call.say(*[replace(one, request_id=i + 2) for i, one in enumerate(operations)])
        await held.quiet()
        held.engine.open_gate.set()
        await call.until(lambda: len(call.all(replies.Applied)) == 101)
        assert not call.all(replies.Problem)


async def test_a_session_that_cannot_go_on_begins_anew() -> None:
    """The server has the session, but not the responses any more."""
    async with lot(keep_bytes=2000) as held:
        first = held.begin()
        first.say(replace(click(), request_id=1), events.VideoChunk(bytes(40)), events.EndOfVideo())
        first.half_close()
        await first.frames(30)
        resume = events.Resume(
            first.grant.token, 4, can_rewind=True, config=CONFIG,
            replay=events.Replay((events.TakenOperation(replace(click(), request_id=1), 0),), 3, 3), last_frame=1,
        )  # fmt: skip
        second = held.resume(resume)
        await second.until(lambda: second.all(replies.Resumed))
        assert second.resumed.how is replies.Resumption.REWOUND
        assert second.attachment.session.id != first.attachment.session.id
        await held.quiet()
        assert held.sessions.running == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": None}, "resume.config: is missing"),
        (
            {"config": events.Configure(propagation=events.Propagation.ON_REQUEST)},
            "resume.can_rewind: is only possible",
        ),
        ({"config": events.Configure(delivery=events.Delivery.LATEST)}, "resume.can_rewind: is only possible"),
    ],
)
async def test_what_cannot_begin_anew_says_why(change: dict[str, events.Configure | None], words: str) -> None:
    async with lot() as held:
        with pytest.raises(InvalidArgument, match=words):
            held.resume(replace(events.Resume("x", can_rewind=True, config=CONFIG), **change))  # type: ignore[arg-type]
        with pytest.raises(NotFound):
            held.resume(events.Resume("x", config=CONFIG))


async def test_a_server_that_keeps_no_sessions_begins_none_anew() -> None:
    async with lot(park_seconds=0) as held:
        with pytest.raises(NotFound):
            held.resume(events.Resume("x", can_rewind=True, config=CONFIG))


@pytest.mark.parametrize(
    ("last_response", "replay", "words"),
    [
        (2**63, events.NO_REPLAY, "last_response: is 9223372036854775808, and no session has had so many"),
        (1, events.Replay((), 2**63), "last_sequence: is 9223372036854775808"),
        (1, events.Replay((), 3, 4), "last_ack: is 4, but the last result received is 3"),
    ],
)
def test_impossible_numbers_are_refused(last_response: int, replay: events.Replay, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        events.Resume("x", last_response, can_rewind=True, config=CONFIG, replay=replay)
