"""A client that says anything at any time, and the promises that a session keeps all the same.

Results come in frame order, exactly one a frame for each object and revision. Never more go unacknowledged than the
window holds, until the client half-closes. A client may send as far ahead as it likes, and read when it likes. What the
client can mend ends nothing. However a session ends, nothing of it is left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from masklet.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from masklet_server.engine.serving.jobs import FrameJob
from masklet_server.masks.pool import MaskPool
from masklet_server.session import events, replies
from masklet_server.session.limits import SessionLimits
from masklet_server.session.state import State
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture
from tests.support.fakes import FakeEngine, prompts_in
from tests.support.session import Talk, click

T = TypeVar("T")

# Before so many frames or the end of the video, there is no result of a clip whose length the client has not told.
LOOKAHEAD_FRAMES = 16

MENDABLE = (FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted)
OBJECTS = st.integers(1, 3)


class InlinePool(MaskPool):
    """Works at once, so that a run is the same each time."""

    async def run(self, work: Callable[[], T]) -> T:
        return work()


class Client(RuleBasedStateMachine):
    """One session and what its client has said and seen."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.fed = self.acked = 0
        self.ended = self.half_closed = False

    @initialize(
        window=st.integers(1, 8),
        latest=st.booleans(),
        kind=st.sampled_from(["file", "pictures", "packets"]),
        frame_count=st.sampled_from([0, 40, 40]),
        correctable=st.sampled_from([0, 1, 4]),
        first=st.integers(0, 12),
    )
    def open(self, window: int, latest: bool, kind: str, frame_count: int, correctable: int, first: int) -> None:
        self.latest, self.kind = latest, kind
        config = events.Configure(
            window=window,
            delivery=events.Delivery.LATEST if latest else events.Delivery.LOSSLESS,
            frame_count=0 if latest or kind == "packets" else frame_count,
        )
        limits = SessionLimits(max_objects=3, max_latency_seconds=1e-9, correction_window=correctable)
        self.talk = self._run(self._talk(config, limits))
        # Rules are left out at random, and without these two there is little to see.
        self._say(click())
        if first:
            self.feed(first)

    async def _talk(self, config: events.Configure, limits: SessionLimits) -> Talk:
        talk = Talk(config, limits, FakeEngine(), InlinePool(1))
        await self._settle()
        return talk

    def _run(self, awaited: Coroutine[None, None, T]) -> T:
        return self.loop.run_until_complete(awaited)

    def _sequences(self) -> list[int]:
        numbered = (replies.FrameResult, replies.PromptResult)
        return [response.sequence for response in self.talk.responses if isinstance(response, numbered)]

    @staticmethod
    async def _settle() -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    def _say(self, *said: events.Event) -> None:
        if not self.half_closed:
            self.talk.say(*said)
        self._run(self._settle())

    # What the client does

    @precondition(lambda self: not self.ended)
    @rule(count=st.integers(1, 12))
    def feed(self, count: int) -> None:
        self.fed += count
        if self.kind == "pictures":
            self._say(*[events.NextPicture(Picture("encoded", b"\1"))] * count)
        elif self.kind == "packets":
            self._say(*[events.NextPacket(Packet(b"\1", "h264"))] * count)
        else:
            self._say(events.VideoChunk(b"\1" * count))

    @rule(object_id=OBJECTS, frame_index=st.integers(0, 30), on_next_frame=st.booleans())
    def prompt(self, object_id: int, frame_index: int, on_next_frame: bool) -> None:
        given = click(object_id, frame_index)
        self._say(events.PromptObject(given.prompt, on_next_frame))

    @rule(object_id=OBJECTS, back=st.integers(1, 20))
    def correct(self, object_id: int, back: int) -> None:
        tracked = [result.frame_index for result in self.talk.all(replies.FrameResult)]
        self._say(click(object_id, max([0, *tracked]) - min(back, max([0, *tracked]))))

    @rule(object_id=OBJECTS, frame_index=st.integers(0, 30))
    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        self._say(events.ClearPrompts(object_id, frame_index))

    @rule(object_id=OBJECTS)
    def remove(self, object_id: int) -> None:
        self._say(events.RemoveObject(object_id))

    @rule(object_id=OBJECTS)
    def click_on_the_next_frame(self, object_id: int) -> None:
        self._say(events.PromptObject(click(object_id).prompt, on_next_frame=True))

    @rule(engine=st.booleans(), again=st.integers(1, 5))
    def take_results_as_they_come(self, engine: bool, again: int) -> None:
        self.talk.reading.set()
        if engine:
            self.talk.engine.open_gate.set()
        for _ in range(again):
            self.acknowledge()

    @rule()
    def acknowledge(self) -> None:
        seen = self._sequences()
        if not self.half_closed:
            self.acked = max([self.acked, *seen])
        self._say(events.Ack(self.acked))

    @rule(sequence=st.integers(0, 1000))
    def acknowledge_anything(self, sequence: int) -> None:
        sent = self._sequences()
        if self.acked <= sequence <= max([0, *sent]) and not self.half_closed:
            self.acked = sequence
        self._say(events.Ack(sequence))

    @rule()
    def talk_nonsense(self) -> None:
        self._say(events.Unreadable(InvalidArgument.of("prompt", "is nonsense")))

    @rule(reads=st.sampled_from([True, True, False]))
    def stop_or_go_on_reading(self, reads: bool) -> None:
        (self.talk.reading.set if reads else self.talk.reading.clear)()
        self._run(self._settle())

    @rule(works=st.sampled_from([True, True, False]))
    def stall_or_wake_the_engine(self, works: bool) -> None:
        (self.talk.engine.open_gate.set if works else self.talk.engine.open_gate.clear)()
        self._run(self._settle())

    @rule(refuses=st.booleans())
    def make_the_engine_refuse_prompts(self, refuses: bool) -> None:
        def refuse(job: FrameJob) -> Exception | None:
            prompted = bool(prompts_in(job))
            return InvalidArgument.of("mask", "is too small") if refuses and prompted else None

        self.talk.engine.refuse = refuse

    @precondition(lambda self: self.fed >= LOOKAHEAD_FRAMES and not self.ended)  # or nothing would ever come of it
    @rule()
    def end_the_video(self) -> None:
        self.ended = True
        self._say(events.EndOfVideo())

    @precondition(lambda self: self.ended)
    @rule()
    def half_close(self) -> None:
        if not self.half_closed:
            self.half_closed = True
            self.talk.half_close()
            self._run(self._settle())

    # What the server promises

    @invariant()
    def nothing_the_client_can_mend_ends_the_session(self) -> None:
        if self.talk.task.done():
            self.talk.task.result()
        assert all(isinstance(problem.error, MENDABLE) for problem in self.talk.all(replies.Problem))

    @invariant()
    def results_come_once_and_in_order(self) -> None:
        results = self.talk.all(replies.FrameResult)
        first = [result.frame_index for result in results if not result.revision]
        assert first == sorted(set(first))
        shown = Counter((r.frame_index, r.revision, one.object_id) for r in results for one in r.objects)
        assert set(shown.values()) <= {1}
        last: dict[int, int] = {}
        for result in results:
            assert result.revision == last.get(result.frame_index, -1) + 1
            last[result.frame_index] = result.revision
            ids = [one.object_id for one in result.objects]
            assert ids == sorted(ids)
        numbered = [
            r.sequence for r in self.talk.responses if isinstance(r, replies.FrameResult | replies.PromptResult)
        ]
        assert numbered == list(range(1, len(numbered) + 1))

    @invariant()
    def the_window_is_kept(self) -> None:
        if self.half_closed:
            return
        unacknowledged = [r for r in self.talk.all(replies.FrameResult) if r.sequence > self.acked]
        window = self.talk.all(replies.Opened)[0].window if self.talk.all(replies.Opened) else 1
        assert len(unacknowledged) <= window

    @invariant()
    def no_more_is_held_than_allowed(self) -> None:
        assert len(self.talk.automatic.objects) <= 3
        assert len(self.talk.automatic.prompts) <= 3
        assert self.talk.engine.max_running <= 1

    def teardown(self) -> None:
        if hasattr(self, "talk"):
            self._run(self._end_well() if self.ended else self._hang_up())
            assert all(source.closed for source in self.talk.sources.made)
            assert self.talk.engine.forgotten == [self.talk.session.id]
            assert not self.talk.automatic.objects
            self.talk.pool.close()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())  # the client's own
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()

    async def _end_well(self) -> None:
        """The client reads everything to the end, and acknowledges it unless it has half-closed: nothing is lost."""
        self.talk.reading.set()
        self.talk.engine.open_gate.set()
        self.talk.engine.refuse = lambda _: None
        for _ in range(500):
            await self._settle()
            if self.talk.task.done():
                break
            seen = [
                r.sequence for r in self.talk.responses if isinstance(r, replies.FrameResult | replies.PromptResult)
            ]
            if not self.half_closed:
                self.talk.say(events.Ack(max([0, *seen])))
        assert self.talk.task.done(), "everything is acknowledged, and the session waits"
        self.talk.task.result()
        results = self.talk.all(replies.FrameResult)
        skipped = [index for result in results for index in result.skipped]
        tracked = [result.frame_index for result in results if not result.revision]
        assert sorted(tracked + skipped) == list(range(self.fed))
        assert self.latest or not skipped
        assert self.talk.session.state is State.DONE

    async def _hang_up(self) -> None:
        self.talk.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.talk.task
        assert self.talk.session.state is State.FAILED


@pytest.mark.slow
def test_whatever_a_client_does_the_promises_are_kept() -> None:
    run_state_machine_as_test(
        Client,
        settings=settings(
            max_examples=60,
            phases=[Phase.generate],  # to shrink a failure takes minutes and helps little
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
