"""Work on request, from the client's side of a session with a fake engine: order, answers, revisions."""

from __future__ import annotations

import dataclasses

import pytest

from masklet.errors import (
    DataLoss,
    InvalidArgument,
    ResourceExhausted,
)
from masklet.prompts import Prompt
from masklet_server.engine.serving.jobs import TrackBackward
from masklet_server.engine.serving.recent_features import EncodedFrame
from masklet_server.masks.encoding import decode
from masklet_server.session import events, replies
from masklet_server.session.events import ClearPrompts, Direction, Propagate, Propagation, RemoveObject, Reset
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.state import State
from masklet_server.video.picture import Picture
from tests.support.engine import features
from tests.support.fake_sources import BROKEN
from tests.support.fakes import FakeEngine, fake_mask, is_tracking, upcoming
from tests.support.session import ON_REQUEST, Talk, answers, click, ids, propagated, talk, video


def frames_of(client: Talk) -> list[int]:
    return [result.frame_index for result in client.all(replies.FrameResult)]


def revisions_of(client: Talk) -> list[int]:
    return [result.revision for result in client.all(replies.FrameResult)]


# The whole way


async def test_a_session_from_prompt_to_done() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(5), click(1, 2), Propagate())
        assert await propagated(client) == [replies.PropagationDone(2, 3, stopped=False)]
        prompted, *results, _ = await answers(client, 5)
        assert isinstance(prompted, replies.PromptResult)
        assert (prompted.sequence, prompted.frame_index, prompted.object.object_id) == (1, 2, 1)
        assert [type(result) for result in results] == [replies.FrameResult] * 3
        assert [result.sequence for result in client.all(replies.FrameResult)] == [2, 3, 4]
        assert [result.pts_nanoseconds for result in client.all(replies.FrameResult)] == [
            80_000_000 + 40_000_000 * i for i in range(3)
        ]
        assert frames_of(client) == [2, 3, 4]
        assert revisions_of(client) == [0, 0, 0]
        assert client.source.closed, "its decoder is of no use any longer"
        first, last = client.all(replies.Described)
        assert (first.info.frame_count, last.info.frame_count) == (0, 5)
        client.half_close()
        await client.end()
        assert client.responses[-1] == replies.Done(5)
        assert client.session.state is State.DONE
        assert client.source.closed
        assert client.engine.forgotten == [client.session.id]
        assert not any(isinstance(job, TrackBackward) for job in client.engine.jobs)


async def test_what_was_asked_for_before_half_closing_is_finished() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(click(1, 1), *video(20), Propagate(), Propagate(direction=Direction.BACKWARD))
        client.half_close()
        await client.end()
        assert frames_of(client) == [*range(1, 20), 1, 0]
        assert client.responses[-1] == replies.Done(20)


async def test_both_directions_are_forward_then_backward_from_the_same_frame() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(6), click(1, 3), Propagate(direction=Direction.BOTH))
        assert await propagated(client) == [replies.PropagationDone(3, 7, stopped=False)]
        assert frames_of(client) == [3, 4, 5, 3, 2, 1, 0]
        assert revisions_of(client) == [0, 0, 0, 1, 0, 0, 0]
        masks = [decode(result.objects[0].mask) for result in client.all(replies.FrameResult)]
        assert (masks[0] == fake_mask(0, 3)).all()
        assert (masks[3] == fake_mask(0, 3)[::-1]).all()


async def test_ranges() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(9), click(1, 4))
        for start, most, direction in [
            (2, 1, Direction.FORWARD),
            (7, 5, Direction.FORWARD),
            (6, 0, Direction.FORWARD),
            (6, 2, Direction.BACKWARD),
            (1, 2, Direction.BACKWARD),
            (0, None, Direction.BACKWARD),
        ]:
            client.say(Propagate(start, most, direction))
        done = await propagated(client, 6)
        assert [(d.start_frame_index, d.frame_count, d.stopped) for d in done] == [
            (2, 2, False),
            (7, 2, False),
            (6, 1, False),
            (6, 3, False),
            (1, 2, False),
            (0, 0, False),
        ]
        assert frames_of(client) == [2, 3, 7, 8, 6, 6, 5, 4, 1, 0]
        (consolidation,) = client.engine.consolidations
        assert len(consolidation.memories) == 1


async def test_answers_come_in_the_order_of_the_requests() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(
            *video(4),
            click(1),
            Propagate(max_frames=1),
            click(2, 3),
            events.Unreadable(InvalidArgument.of("prompt", "bad")),
            ClearPrompts(2, 3),
            RemoveObject(2),
            RemoveObject(7),
            Propagate(1, 0),
        )
        said = (await answers(client, 9))[:9]
        kinds = [type(one).__name__ for one in said]
        assert kinds == [
            *("PromptResult", "FrameResult", "FrameResult", "PropagationDone"),
            *("PromptResult", "Problem", "PromptResult", "Problem", "FrameResult"),
        ]
        await propagated(client, 2)
        assert client.problems == ["prompt: bad", "object 7 is not tracked"]
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1], [1], [1]]


async def test_objects_are_tracked_together_in_order_of_their_ids() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(3), click(9), click(4, 1), Propagate())
        await propagated(client)
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[4, 9]] * 3
        assert [len(job.memories) for job in client.engine.jobs] == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(("deterministic", "encode_ahead"), [(False, 3), (True, 3), (False, 1)])
async def test_the_engine_gets_the_next_frames_of_the_propagation(deterministic: bool, encode_ahead: int) -> None:
    engine = FakeEngine()
    engine.models["fake"] = dataclasses.replace(engine.models["fake"], encode_ahead=encode_ahead)
    configure = dataclasses.replace(ON_REQUEST, deterministic=deterministic)
    async with talk(configure, engine=engine) as client:
        client.say(events.VideoChunk(bytes(range(6))), events.EndOfVideo(), click(1, 3))
        await answers(client, 1)
        client.say(Propagate(direction=Direction.BOTH))
        await propagated(client)
    told = [(job.frame.index, upcoming(job)) for job in engine.jobs]
    if deterministic or encode_ahead == 1:
        assert not any(pictures for _, pictures in told)
    else:
        forward, backward = [(3, [4, 5]), (4, [5]), (5, [])], [(3, [2, 1]), (2, [1, 0]), (1, [0]), (0, [])]
        assert told == [(3, []), *forward, *backward]
    assert len({id(job.stream.recent) for job in engine.jobs}) == 1


async def test_frames_encoded_already_are_not_read_a_second_time() -> None:
    engine = FakeEngine()
    engine.models["fake"] = dataclasses.replace(engine.models["fake"], encode_ahead=3)
    async with talk(ON_REQUEST, engine=engine) as client:
        client.say(*video(6), click(1, 0))
        await answers(client, 1)
        recent = engine.jobs[0].stream.recent
        assert recent is not None
        for index in (0, 1):
            recent.put(index, EncodedFrame(features(index), 0.0))
        client.say(Propagate())
        await propagated(client)
    assert [len(upcoming(job)) for job in engine.jobs] == [0, 0, 0, 2, 2, 1, 0]


async def test_a_frame_encoded_meanwhile_has_the_next_one_encoded_in_its_turn() -> None:
    engine = FakeEngine()
    engine.models["fake"] = dataclasses.replace(engine.models["fake"], encode_ahead=2, encodes_meanwhile=True)
    async with talk(ON_REQUEST, engine=engine) as client:
        client.say(events.VideoChunk(bytes(range(4))), events.EndOfVideo(), click(1, 0))
        await answers(client, 1)
        recent = engine.jobs[0].stream.recent
        assert recent is not None
        for index in (0, 3):
            recent.put(index, EncodedFrame(features(index), 0.0))
        client.say(Propagate())
        await propagated(client)
    # Frame 2 needs nothing, because frame 3 is encoded already.
    assert [(job.frame.index, upcoming(job)) for job in engine.jobs[1:]] == [(0, [1]), (1, [2]), (2, []), (3, [])]


async def test_short_clips_are_known_to_be_short() -> None:
    for frames, length in [(15, 15), (16, None), (30, None)]:
        async with talk(ON_REQUEST) as client:
            client.say(*video(frames), click(), Propagate(max_frames=0))
            await propagated(client)
            assert {job.frame.clip_length for job in client.engine.jobs} == {length}


# Video that is still arriving


async def test_requests_wait_for_the_frames_they_name_and_no_longer() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(click(1, 17), events.VideoChunk(bytes(16)))
        await client.taken(16)
        await client.quiet()
        assert client.engine.jobs == []
        client.say(events.VideoChunk(bytes(4)))
        await answers(client, 1)
        client.say(Propagate())
        await client.frames(3)
        await client.quiet()
        assert client.all(replies.PropagationDone) == []
        client.say(events.VideoChunk(bytes(2)), events.EndOfVideo())
        assert await propagated(client) == [replies.PropagationDone(17, 5, stopped=False)]


async def test_a_container_may_say_itself_where_it_ends() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(click(), events.VideoChunk(bytes(3)))
        await client.until(lambda: client.sources.made)
        await client.source.end()
        client.say(Propagate())
        await propagated(client)
        assert not client.source.closed, "more may be fed, and is dropped"
        client.say(events.EndOfVideo())
        client.half_close()
        await client.end()
        assert client.source.closed


async def test_pictures_are_taken_however_slowly_results_are() -> None:
    async with talk(events.Configure(propagation=Propagation.ON_REQUEST, window=1)) as client:
        client.say(*[events.NextPicture(Picture("encoded", b"x"))] * 40, click(), Propagate(), events.EndOfVideo())
        await client.taken(40)
        assert frames_of(client) in ([], [0])


async def test_a_video_by_url() -> None:
    config = events.Configure(propagation=Propagation.ON_REQUEST, source_url="http://host/18")
    async with talk(config) as client:
        client.say(click(), Propagate(), events.EndOfVideo())
        client.half_close()
        await client.end()
        assert client.responses[-1] == replies.Done(18)
        assert len(frames_of(client)) == 18


async def test_a_video_that_breaks_off_is_a_video_as_far_as_it_goes() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(events.VideoChunk(bytes([0] * 20 + [BROKEN])), events.EndOfVideo(), click(), events.Propagate())
        assert await propagated(client) == [replies.PropagationDone(0, 20, stopped=False)]
        client.half_close()
        await client.end()
        assert client.responses[-1] == replies.Done(20)
        first, last = client.all(replies.Described)
        assert first.broken_off is None
        assert isinstance(last.broken_off, DataLoss)
        assert str(last.broken_off) == "a frame is broken"
        assert last.info.frame_count == 20


async def test_a_video_that_is_broken_from_the_start_ends_the_session() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(events.VideoChunk(bytes([BROKEN])), events.EndOfVideo(), click())
        with pytest.raises(DataLoss, match="a frame is broken"):
            await client.end()


async def test_frames_have_a_bound() -> None:
    async with talk(ON_REQUEST, max_stored_frame_bytes=10 * 16 * 16 * 3) as client:
        client.say(*video(11))
        with pytest.raises(ResourceExhausted, match="max_stored_frame_bytes = 7680"):
            await client.end()


# Credits


async def test_results_wait_for_acks() -> None:
    config = events.Configure(propagation=Propagation.ON_REQUEST, window=2)
    async with talk(config) as client:
        client.say(*video(8), click(), Propagate())
        await client.frames(2)
        await client.quiet()
        assert frames_of(client) == [0, 1]
        for result in range(2, 10):
            client.say(events.Ack(result))
            await client.quiet()
        assert await propagated(client) == [replies.PropagationDone(0, 8, stopped=False)]


async def test_after_half_closing_no_acks_are_waited_for() -> None:
    config = events.Configure(propagation=Propagation.ON_REQUEST, window=2)
    async with talk(config) as client:
        client.say(*video(30), click(), Propagate())
        await client.frames(2)
        await client.quiet()
        assert frames_of(client) == [0, 1]
        client.say(Propagate(25))
        client.half_close()
        await client.end()
        assert frames_of(client) == [*range(30), *range(25, 30)]


async def test_a_failed_frame_costs_no_credit() -> None:
    config = events.Configure(propagation=Propagation.ON_REQUEST, window=1)
    async with talk(config) as client:
        client.engine.refuse = lambda job: (
            ResourceExhausted("full") if is_tracking(job) and len(client.problems) < 2 else None
        )
        client.say(*video(3), click(), Propagate(), Propagate(), Propagate(max_frames=0))
        done = await propagated(client, 3)
        assert [(d.frame_count, d.stopped) for d in done] == [(0, True), (0, True), (1, False)]
        assert client.problems == ["full", "full"]


# Stopping


async def test_stopping_ends_the_one_under_way_and_drops_those_that_wait() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(50), click())
        await answers(client, 1)
        client.engine.open_gate.clear()
        client.say(Propagate(), Propagate(5), click(2))
        await client.until(lambda: client.engine.running)
        client.say(events.StopPropagation())
        await client.quiet()
        client.say(Propagate(7, 1))
        client.engine.open_gate.set()
        done = await propagated(client, 3)
        assert done == [
            replies.PropagationDone(0, 1, stopped=True),
            replies.PropagationDone(5, 0, stopped=True),
            replies.PropagationDone(7, 2, stopped=False),
        ]
        assert [result.object.object_id for result in client.all(replies.PromptResult)] == [1, 2]


async def test_stopping_while_the_client_has_to_acknowledge() -> None:
    config = events.Configure(propagation=Propagation.ON_REQUEST, window=3)
    async with talk(config) as client:
        client.say(*video(50), click(), Propagate())
        await client.frames(3)
        client.say(events.StopPropagation())
        assert await propagated(client) == [replies.PropagationDone(0, 3, stopped=True)]
        client.say(events.Ack(4), Propagate(10, 2))
        await propagated(client, 2)
        assert frames_of(client) == [0, 1, 2, 10, 11, 12]


async def test_stopping_while_frames_are_missing() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(events.VideoChunk(bytes(18)), click(), Propagate())
        await client.frames(18)
        client.say(events.StopPropagation())
        assert await propagated(client) == [replies.PropagationDone(0, 18, stopped=True)]


async def test_stopping_nothing_does_nothing() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(3), events.StopPropagation(), click(), events.StopPropagation())
        await answers(client, 1)
        client.say(Propagate())
        assert await propagated(client) == [replies.PropagationDone(0, 3, stopped=False)]
        assert client.problems == []


# Second thoughts


async def test_clearing_shows_what_is_left() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(3), click(1, 0), click(1, 2), ClearPrompts(1, 2), Propagate(), ClearPrompts(1, 0))
        client.say(Propagate(), click(1, 0), Propagate(max_frames=0))
        await propagated(client, 3)
        areas = [result.object.area for result in client.all(replies.PromptResult)]
        assert areas == [64, 64, 0, 64, 64]
        assert not client.all(replies.PromptResult)[2].object.visible
        assert client.problems == ["object 1 has no prompt any more; prompt it again or remove it"]
        assert [d.stopped for d in client.all(replies.PropagationDone)] == [False, True, False]


async def test_reset_forgets_objects_and_revisions() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(2), click(), Propagate(), Propagate(), Reset(), Propagate(), click(2), Propagate())
        await propagated(client, 4)
        assert revisions_of(client) == [0, 0, 1, 1, 0, 0]
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1]] * 4 + [[2]] * 2
        assert client.problems == ["there is no object to track; send a prompt first"]
        assert list(client.on_request.annotator.objects) == [2]


async def test_prompts_by_time() -> None:
    """Frames are 40 ms apart."""
    async with talk(ON_REQUEST) as client:
        seconds = [-5.0, 0.0, 0.019, 0.02, 0.021, 0.06, 0.0601, 99.0]
        prompts = [GivenPrompt(Prompt(1, pts_seconds=one, point_coords=[(5, 5)])) for one in seconds]
        client.say(*map(events.PromptObject, prompts), *video(5))
        await answers(client, len(seconds))
        assert [result.frame_index for result in client.all(replies.PromptResult)] == [0, 0, 0, 0, 1, 1, 2, 4]
