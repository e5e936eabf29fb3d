"""Sessions that begin anew on a server that knows nothing of them: the client sees what it would have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from masklet.errors import InvalidArgument, NotFound
from masklet_server.session import events, replies
from tests.support.resuming import CONFIG, Call, Lot, lot
from tests.support.session import click

# By number of frame results that the client has, what it then says before it acknowledges the last one.
Plan = Mapping[int, Sequence[events.Operation]]
FRAMES = 24
# New objects, corrections of tracked frames one after the other and together, prompts ahead, removals, prompts taken
# back; and prompts that are wrong.
PLAN: Plan = {
    0: [click(1), click(2, 6)],
    3: [click(1, 1)],
    8: [click(2, 6), click(1, 4)],
    12: [events.RemoveObject(2)],
    14: [click(2, 12), click(3, 20), click(3, 21)],
    16: [events.ClearPrompts(3, 21), events.RemoveObject(77), click(9, 3)],
    20: [events.RemoveObject(9), click(1, 0)],
    33: [click(1, 10), click(2, 9)],
}


class Viewer:
    """A client with a window of 1, which says when it has how many results, over several calls.

    Attributes:
        seen: Every frame result and prompt result: sequence, frame, revision (None for a prompt) and masks by object.
        problems: Errors by the number of their request.
    """

    def __init__(self, plan: Plan, config: events.Configure = CONFIG) -> None:
        self.config = replace(config, window=1, deterministic=True)
        self.seen: list[tuple[int, int, int | None, dict[int, bytes]]] = []
        self.problems: dict[int, str] = {}
        self.said: dict[int, events.Operation] = {}
        self.taken: dict[int, replies.Taken] = {}
        self.numbers: list[int] = []
        self.done: replies.Done | None = None
        self._plan = plan
        self._frames = 0
        self._last_frame: int | None = None
        self._last_ack = 0

    async def watch(self, held: Lot, *, breaks_after: int | None = None) -> Call:
        """Begin a session and watch until the end, or until so many responses have come and the call breaks."""
        call = held.begin(self.config)
        self._say(call)
        self._video(call)
        await self._read(call, breaks_after)
        return call

    async def watch_on(self, held: Lot, token: str = "lost", *, breaks_after: int | None = None) -> Call:
        """Go on, on a server that does not have the session."""
        answered = [events.TakenOperation(self.said[i], taken.after_sequence) for i, taken in self.taken.items()]
        answered.sort(key=lambda one: one.operation.request_id)
        call = held.resume(
            events.Resume(
                token,
                last_response=max(self.numbers, default=0),
                can_rewind=True,
                config=self.config,
                replay=events.Replay(tuple(answered), self.seen[-1][0] if self.seen else 0, self._last_ack),
                last_frame=self._last_frame,
            )
        )
        await call.until(lambda: call.all(replies.Resumed))
        assert call.resumed.how is replies.Resumption.REWOUND
        assert call.resumed.position.unit == ""
        assert call.resumed.rewound_to_frame == self._last_frame
        for number, operation in self.said.items():
            if number not in self.taken and number not in self.problems:
                call.say(operation)
        self._video(call)
        await self._read(call, breaks_after)
        return call

    def _video(self, call: Call) -> None:
        call.say(*[events.VideoChunk(bytes([i])) for i in range(FRAMES)], events.EndOfVideo())

    def _say(self, call: Call) -> None:
        for operation in self._plan.get(self._frames, ()):
            number = len(self.said) + 1
            self.said[number] = replace(operation, request_id=number)
            call.say(self.said[number])

    async def _read(self, call: Call, breaks_after: int | None) -> None:
        read = 0
        while self.done is None:
            await call.until(lambda: len(call.responses) > read)  # noqa: B023 - it is called at once
            response = call.responses[read]
            read += 1
            if isinstance(response, replies.Numbered):
                self.numbers.append(response.number)
                self._take(call, response.response)
            if len(self.numbers) == breaks_after:
                await call.breaks()
                return
        call.half_close()
        await call.end()

    def _take(self, call: Call, response: replies.Response) -> None:
        number = 0
        if isinstance(response, replies.Answer):
            number, response = response.request_id, response.response
        match response:
            case replies.FrameResult():
                masks = {one.object_id: one.mask.data for one in response.objects}
                self.seen.append((response.sequence, response.frame_index, response.revision, masks))
                self._frames += 1
                self._last_frame = response.frame_index
                self._say(call)
                self._last_ack = response.sequence
                call.say(events.Ack(response.sequence))
            case replies.PromptResult():
                found = {response.object.object_id: response.object.mask.data}
                self.seen.append((response.sequence, response.frame_index, None, found))
                assert response.taken == self.taken[number], "it was answered when it was taken"
            case replies.Applied():
                assert response.taken is not None
                self.taken[number] = response.taken
            case replies.Problem():
                self.problems[number] = response.error.message
            case replies.Done():
                self.done = response


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
        call.say(*[replace(click(i, 22), request_id=i) for i in range(1, 7)])
        await call.until(lambda: len(call.all(replies.Problem)) == 2)
        assert "4 operations wait already" in call.all(replies.Problem)[0].error.message


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
