"""Corrections of a clip's frames before the correction window, over a session with a fake engine."""

from __future__ import annotations

import asyncio
import functools
import gc
from contextlib import AbstractAsyncContextManager
from typing import cast

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from masklet_server.budgets.shares import UNBOUNDED
from masklet_server.engine.serving.jobs import FrameJob
from masklet_server.session import events, replies
from masklet_server.session.events import Delivery
from masklet_server.video.picture import Picture
from tests.support.fake_sources import FakeClip
from tests.support.fakes import FakeBank, is_tracking
from tests.support.session import (
    Talk,
    ack,
    at,
    click,
    finish,
    ids,
    known_corrections,
    lines,
    prompted,
    talk,
    video,
    violations,
)

PICTURE = events.NextPicture(Picture("encoded", b"\x01"))
# The session waits for the client's acks before it ends, so that all frames can be corrected.
PATIENT = events.Configure(correction_window=3)
# Of the server: banks are put away so often.
STRIDE = 5
# What a bank then takes.
PIECE = 512 * 1024


def narrow(config: events.Configure = PATIENT, **limits: float) -> AbstractAsyncContextManager[Talk]:
    """A session that keeps three frames, and of each object every fifth bank."""
    return talk(
        config, engine=None, sources=None, share=UNBOUNDED, **{"window": 1000, "correction_window": STRIDE, **limits}
    )


def clip_of(client: Talk) -> FakeClip:
    return cast("FakeClip", client.source)


def known(client: Talk, object_id: int = 1, bank: int = 0) -> list[tuple[int, int]]:
    """For each result that was sent again, its frame and the number of corrections that the fake engine knew of."""
    results = [r for r in client.all(replies.FrameResult) if r.revision and object_id in ids(r)]
    return [(r.frame_index, known_corrections(r, object_id, bank)) for r in results]


# Sent again


async def test_a_frame_long_gone_is_corrected_and_all_frames_since_are_sent_again_for_that_object_alone() -> None:
    async with narrow() as client:
        client.say(click(1), click(2), *video(20))
        await client.frames(20)
        assert len(client.automatic.objects.window) == 3
        client.say(click(1, 8))
        await client.frames(32)
        await client.quiet()
        assert lines(client) == [*[(i, 0, [1, 2]) for i in range(20)], *[(i, 1, [1]) for i in range(8, 20)]]
        assert known(client) == [(i, 1) for i in range(8, 20)]
        assert [result.pts_nanoseconds for result in client.all(replies.FrameResult)[20:22]] == [
            320_000_000,
            360_000_000,
        ]
        assert prompted(client) == [(0, 1), (0, 2), (8, 1)]
        # Its memory is loaded as it was on frame 5, and frames are decoded again up to those in the window.
        assert clip_of(client).redecoded == [list(range(6, 17))]
        jobs = client.engine.jobs[20:]
        assert [(job.frame.index, is_tracking(job)) for job in jobs[:4]] == [
            (6, True),
            (7, True),
            (8, True),
            (8, False),
        ]
        assert all((job.frame.pixels == client.engine.jobs[job.frame.index].frame.pixels).all() for job in jobs)
        assert clip_of(client).open_redecoders == 0
        # Its memory is as bounded as before: the last frames can be corrected, and no more is held for it.
        (bank, _) = client.automatic.objects.banks
        assert cast("FakeBank", bank).correctable == {17, 18, 19}
        client.say(events.ClearPrompts(1, 8))
        await client.until(lambda: client.problems)
        assert "object 1 on frame 8 was applied already" in client.problems[0]
        await finish(client)
        assert len(client.problems) == 1


async def test_the_first_frame_can_be_corrected_whatever_the_window() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        client.say(click(1, 0))
        await client.frames(40)
        assert known(client) == [(i, 1) for i in range(20)]
        await finish(client)


async def test_revisions_count_up_frame_by_frame_and_corrections_last() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        count = 20
        for frame_index in (6, 12, 12, 18, 9, 3):
            client.say(click(1, frame_index))
            count += 20 - frame_index
            await client.frames(count)
        await client.quiet()
        sent: dict[int, list[int]] = {}
        for index, revision, _ in lines(client):
            sent.setdefault(index, []).append(revision)
        assert all(revisions == list(range(len(revisions))) for revisions in sent.values())
        assert {index: len(revisions) for index, revisions in sent.items()} == {
            index: 1 + sum(frame_index <= index for frame_index in (6, 12, 12, 18, 9, 3)) for index in range(20)
        }
        # Going back to an earlier frame takes back corrections on later ones, and no other.
        assert dict(known(client)) == dict.fromkeys(range(3, 20), 1)
        assert known(client)[14:22] == [(i, 2) for i in range(12, 20)]
        await finish(client)


async def test_a_new_object_begins_on_a_frame_long_gone() -> None:
    async with narrow() as client:
        client.say(*video(20))
        await client.frames(20)
        client.say(click(4, 7))
        await client.frames(33)
        assert lines(client)[20:] == [(i, 1, [4]) for i in range(7, 20)]
        assert clip_of(client).redecoded == [list(range(7, 17))]
        client.say(click(4, 2), click(4, 9))
        await client.frames(51)
        await client.quiet()
        assert lines(client)[33:38] == [(i, 1, [4]) for i in range(2, 7)]
        assert known(client, 4)[13:] == [(i, 1 if i >= 9 else 0) for i in range(2, 20)]
        await finish(client)


async def test_corrections_far_apart_share_one_way_to_the_present() -> None:
    async with narrow() as client:
        client.say(click(1), click(2), click(3), *video(30))
        await client.frames(30)
        client.engine.open_gate.clear()
        client.say(click(3, 28))
        await client.until(lambda: client.engine.running)
        client.say(click(2, 18), click(1, 7), click(1, 22))
        await client.quiet()
        client.engine.open_gate.set()
        # All of the third object's first, because it was under way.
        await client.frames(30 + 2 + 23)
        await client.quiet()
        assert lines(client)[30:32] == [(28, 1, [3]), (29, 1, [3])]
        assert lines(client)[32:] == [(i, 2 if i >= 28 else 1, [1] if i < 18 else [1, 2]) for i in range(7, 30)]
        assert known(client, 1) == [(i, 1 if i < 22 else 2) for i in range(7, 30)]
        assert known(client, 2, 1) == [(i, 1) for i in range(18, 30)]
        assert clip_of(client).redecoded == [list(range(6, 27))]
        await finish(client)


async def test_one_that_comes_too_late_to_be_brought_back_waits_for_the_next_way() -> None:
    async with narrow() as client:
        client.say(click(1), click(2), *video(30))
        await client.frames(30)

        def say_more(job: FrameJob) -> None:
            if job.frame.index == 12:
                client.engine.refuse = lambda _: None
                client.say(click(2, 14), click(1, 3))  # the second object would have to be tracked from frame 10 on

        client.engine.refuse = say_more
        client.say(click(1, 7))
        await client.frames(30 + 23 + 27)
        await client.quiet()
        assert lines(client)[30:] == [
            *[(i, 1, [1]) for i in range(7, 30)],
            *[(i, 1, [1]) for i in range(3, 7)],
            *[(i, 2, [1] if i < 14 else [1, 2]) for i in range(7, 30)],
        ]
        assert known(client, 2, 1) == [(i, 1) for i in range(14, 30)]
        assert clip_of(client).redecoded == [list(range(6, 27)), list(range(1, 27))]
        await finish(client)


async def test_the_video_goes_on_from_there() -> None:
    async with narrow() as client:
        client.say(click(1), events.VideoChunk(bytes(20)))
        await client.frames(20)
        client.say(click(1, 8))
        await client.frames(32)
        client.say(events.VideoChunk(bytes(4)), events.EndOfVideo())
        await client.frames(36)
        await finish(client)
        assert lines(client)[32:] == [(i, 0, [1]) for i in range(20, 24)]
        results = client.all(replies.FrameResult)[32:]
        assert [known_corrections(r, 1, 0) for r in results] == [1] * 4


async def test_a_video_that_the_server_fetches_is_spooled_too() -> None:
    async with narrow(events.Configure(correction_window=3, source_url="fake://host/20")) as client:
        client.say(click(1), events.EndOfVideo())
        await client.frames(20)
        client.say(click(1, 5))
        await client.frames(35)
        await finish(client)
        assert known(client) == [(i, 1) for i in range(5, 20)]


async def test_without_room_in_the_window_all_frames_are_decoded_again() -> None:
    async with narrow(correction_bytes=10) as client:
        client.say(click(1), *video(12))
        await client.frames(12)
        assert len(client.automatic.objects.window) == 0
        client.say(click(1, 6))
        await client.frames(18)
        client.say(click(1, 11))
        await client.frames(19)
        await finish(client)
        assert client.problems == []
        assert known(client) == [*[(i, 1) for i in range(6, 12)], (11, 2)]
        assert clip_of(client).redecoded == [list(range(6, 12)), [11]]


async def test_it_takes_credits_for_what_is_sent_alone() -> None:
    async with narrow(events.Configure(window=2, correction_window=3)) as client:
        client.say(click(1), *video(12))
        for count in range(2, 13, 2):
            await client.frames(count)
            client.say(ack(client))
        client.say(click(1, 9))
        await client.frames(14)
        await client.quiet()
        assert len(lines(client)) == 14, "two of three, as many as the window takes"
        client.say(ack(client))
        await client.frames(15)
        await finish(client)
        assert known(client) == [(9, 1), (10, 1), (11, 1)]


async def test_a_time_names_a_frame_long_gone() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        client.say(at(0.21), at(-1, 2))
        await client.until(lambda: len(prompted(client)) == 3)
        assert set(prompted(client)[1:]) == {(5, 1), (0, 2)}
        await client.until(
            lambda: lines(client)[-1][0] == 19 and {1, 2} <= {o for line in lines(client)[20:] for o in line[2]}
        )
        await finish(client)


# Changes on the way


async def test_an_object_removed_on_its_way_back_is_forgotten() -> None:
    async with narrow() as client:
        client.say(click(1), click(2), *video(20))
        await client.frames(20)
        client.engine.open_gate.clear()
        client.say(click(1, 9))
        await client.until(lambda: client.engine.running)
        assert client.engine.jobs[-1].frame.index == 6
        client.say(events.RemoveObject(1))
        await client.quiet()
        client.engine.open_gate.set()
        await client.until(lambda: not clip_of(client).open_redecoders)
        await client.quiet()
        assert len(lines(client)) == 20
        client.say(click(1, 9))
        await client.frames(31)
        assert len(client.engine.banks) == 3, "a new object"
        await finish(client)


async def test_a_correction_taken_back_on_the_way_changes_nothing() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        client.engine.open_gate.clear()
        client.say(click(1, 9))
        await client.until(lambda: client.engine.running)
        client.say(events.ClearPrompts(1, 9))
        await client.quiet()
        client.engine.open_gate.set()
        await client.until(lambda: not clip_of(client).open_redecoders)
        await client.quiet()
        assert len(lines(client)) == 20
        client.say(click(1, 18))
        await client.frames(22)
        assert known(client) == [(18, 1), (19, 1)]
        client.say(events.ClearPrompts(1, 0), events.ClearPrompts(1, 9))
        await client.until(lambda: len(client.problems) == 2)
        errors = [problem.error for problem in client.all(replies.Problem)]
        assert [type(error) for error in errors] == [FailedPrecondition, NotFound]
        await finish(client)


async def test_what_the_engine_refuses_leaves_the_object_as_it_was() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        client.engine.refuse = lambda job: None if is_tracking(job) else InvalidArgument.of("mask", "is too small")
        client.say(click(1, 9), click(5, 9))
        await client.until(lambda: len(client.problems) == 2)
        assert violations(client) == [["prompt.mask"]] * 2
        await client.until(lambda: not clip_of(client).open_redecoders)
        client.engine.refuse = lambda _: None
        assert set(client.automatic.objects) == {1}
        assert len(lines(client)) == 20
        client.say(click(1, 19))
        await client.frames(21)
        assert known(client) == [(19, 1)]
        await finish(client)


async def test_everything_is_freed_when_the_client_leaves_in_the_middle() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        client.say(click(1, 9))
        await client.frames(31)
        await client.quiet()
        client.engine.open_gate.clear()
        client.say(click(1, 3))
        await client.until(lambda: client.engine.running)
        assert clip_of(client).open_redecoders == 1
        automatic = client.automatic
        client.task.cancel()
        await asyncio.gather(client.task, return_exceptions=True)
        assert clip_of(client).open_redecoders == 0
        assert clip_of(client).closed
        assert not automatic.objects
        assert not automatic.tracker.corrections.under_way
        assert automatic.objects.snapshot_file_bytes == 0


# What is impossible


async def test_a_frame_that_is_not_the_same_any_more_is_told_and_the_rest_goes_on() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        clip_of(client).changed = 7
        client.say(click(1, 9), click(1, 9), click(6, 7))
        await client.until(lambda: len(client.problems) == 3)
        assert all(isinstance(problem.error, DataLoss) for problem in client.all(replies.Problem))
        client.say(click(1, 18))
        await client.frames(22)
        assert known(client) == [(18, 1), (19, 1)]
        assert clip_of(client).open_redecoders == 0
        await finish(client)


async def test_a_frame_that_is_not_the_same_after_a_correction_ends_the_session() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        clip_of(client).changed = 12
        client.say(click(1, 9))
        with pytest.raises(DataLoss, match="frame 12 is not the same"):
            await client.end()
        assert known(client) == [(9, 1), (10, 1), (11, 1)]
        assert clip_of(client).open_redecoders == 0


async def test_with_little_room_the_way_to_a_correction_is_longer() -> None:
    async with narrow(max_history_bytes=2 * PIECE) as client:
        client.say(click(1), *video(20))  # frames 0 and 15, between which there was no room
        await client.frames(20)
        client.say(click(1, 13))
        await client.frames(27)
        assert known(client) == [(i, 1) for i in range(13, 20)]
        assert clip_of(client).redecoded == [list(range(1, 17))]
        await finish(client)
        assert client.problems == []


async def test_without_room_for_its_memory_an_object_can_be_corrected_within_the_window_alone() -> None:
    async with narrow(max_history_bytes=3 * PIECE) as client:
        client.say(*[click(1, index) for index in (0, 5, 10, 15)], *video(20))
        await client.frames(20)
        client.say(click(1, 3))
        await client.until(lambda: client.problems)
        error = client.all(replies.Problem)[0].error
        assert isinstance(error, ResourceExhausted)
        assert (
            "object 1 can no longer be corrected on frame 3, which lies before the correction window: " in error.message
        )
        assert "max_history_bytes = 1572864" in error.message
        assert client.engine.banks[0].keeps_prompts is False
        client.say(click(1, 18))
        await client.frames(22)
        client.say(events.RemoveObject(1), click(2, 10))
        await client.frames(32)
        client.say(click(2, 12))
        await client.frames(40)
        assert known(client, 2, 1)[10:] == [(i, 1) for i in range(12, 20)]
        assert len(client.problems) == 1
        await finish(client)


async def test_what_is_forgotten_takes_no_room() -> None:
    async with narrow() as client:
        client.say(click(1), *video(20))
        await client.frames(20)
        objects = client.automatic.objects
        size, count = objects.snapshot_file_bytes, 20
        assert size == 4 * PIECE
        for _ in range(5):
            client.say(click(1, 5))
            count += 15
            await client.frames(count)
        assert objects.snapshot_file_bytes == size
        client.say(events.RemoveObject(1))
        await client.quiet()
        gc.collect()
        client.say(click(2, 0))  # writes as many snapshots as were forgotten
        await client.frames(count + 20)
        assert objects.snapshot_file_bytes == size
        await finish(client)


@pytest.mark.parametrize(
    "config",
    [
        events.Configure(live=True, correction_window=3),
        events.Configure(delivery=Delivery.LATEST, max_latency_seconds=60, correction_window=3),
    ],
)
async def test_frames_of_a_live_stream_are_not_decoded_again(config: events.Configure) -> None:
    async with narrow(config) as client:
        client.say(click(1), events.VideoChunk(bytes(10)))
        await client.frames(10)
        client.say(click(1, 2), at(0.04))
        await client.until(lambda: len(client.problems) == 2)
        assert violations(client) == [["prompt.frame_index"], ["prompt.pts_seconds"]]
        assert client.automatic.objects.snapshot_file_bytes == 0
        client.say(events.EndOfVideo())
        await finish(client)


async def test_pictures_are_not_spooled() -> None:
    async with narrow() as client:
        client.say(click(1), *[PICTURE] * 16, events.EndOfVideo())
        await client.frames(16)
        client.say(click(1, 2))
        await client.until(lambda: client.problems)
        assert (
            "frames 13 to 15 can. Every frame can be corrected in a clip that is sent as a file" in client.problems[0]
        )
        await finish(client)


# Whatever is said


def has_answered(client: Talk, seen: int) -> bool:
    """Whether more responses have come than that, and no more will come."""
    return len(client.responses) > seen and not client.automatic.tracker.corrections.are_due


async def all_that_is_sent(window: int, said: list[tuple[str, int, int]]) -> list[tuple[int, int, int, bytes]]:
    """Of a session with such a window, what was sent; each is said when those before it are done."""
    async with narrow(events.Configure(correction_window=window), correction_window=max(window, STRIDE)) as client:
        client.say(click(1), click(2, 4), click(1, 6), *video(14))
        await client.frames(14)
        for what, object_id, frame_index in said:
            seen = len(client.responses)
            client.say(events.RemoveObject(object_id) if what == "remove" else click(object_id, frame_index))
            if what == "click":
                await client.until(functools.partial(has_answered, client, seen))
            await client.quiet()
        await finish(client)
        return [
            (result.frame_index, result.revision, one.object_id, one.mask.data)
            for result in client.all(replies.FrameResult)
            for one in result.objects
        ]


@pytest.mark.slow
@settings(max_examples=15, deadline=None, phases=[Phase.generate])
@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(st.sampled_from(["click", "click", "click", "remove"]), st.integers(1, 3), st.integers(0, 13)),
        max_size=6,
    ),
)
def test_the_window_changes_nothing_of_what_is_sent(window: int, said: list[tuple[str, int, int]]) -> None:
    assert asyncio.run(all_that_is_sent(window, said)) == asyncio.run(all_that_is_sent(14, said))
