"""Corrections: prompts for tracked frames, over a session with a fake engine."""

from __future__ import annotations

import numpy as np
import pytest

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, NotFound, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.engine.memory.object_memory import MAX_CONDITIONING_FRAMES
from masklet_server.engine.network.mask_input import square_mask
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, encode
from masklet_server.masks.runs import Runs
from masklet_server.session import events, replies
from masklet_server.session.prompts import GivenPrompt
from masklet_server.video.picture import Picture
from tests.support.fakes import HEIGHT, WIDTH, is_tracking, prompts_in
from tests.support.session import (
    click,
    finish,
    known_corrections,
    lines,
    prompted,
    talk,
    video,
    violations,
)

PICTURE = events.NextPicture(Picture("encoded", b"\x01"))
LIVE = events.Configure(live=True)
# The session waits for the client's acks before it ends, so that all frames can be corrected.
PATIENT = events.Configure(correction_window=64)


# Sent again


async def test_a_correction_is_answered_and_all_frames_since_are_sent_again_for_that_object_alone() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), click(2), *video(8))
        await client.frames(8)
        client.say(click(1, 5))
        await client.frames(11)
        await finish(client)
        assert lines(client) == [*[(i, 0, [1, 2]) for i in range(8)], (5, 1, [1]), (6, 1, [1]), (7, 1, [1])]
        results = client.all(replies.FrameResult)
        assert [known_corrections(r, 1, 0) for r in results] == [0] * 8 + [1] * 3
        assert [known_corrections(r, 2, 1) for r in results[:8]] == [0] * 8
        assert [result.pts_nanoseconds for result in results[8:]] == [i * 40_000_000 for i in (5, 6, 7)]
        prompted = client.all(replies.PromptResult)[-1]
        assert (prompted.frame_index, prompted.object.object_id) == (5, 1)
        assert prompted.sequence == results[8].sequence - 1, "the outcome comes just before its frame"
        assert client.all(replies.Done) == [replies.Done(8)]
        assert client.problems == []


async def test_the_corrected_frame_is_prompted_and_not_tracked_and_those_after_it_tracked_once() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), *video(6))
        await client.frames(6)
        client.say(click(1, 3))
        await client.frames(9)
        again = client.engine.jobs[6:]
        assert [(job.frame.index, is_tracking(job), len(prompts_in(job))) for job in again] == [
            (3, False, 1),
            (4, True, 0),
            (5, True, 0),
        ]
        assert all((job.frame.pixels == client.engine.jobs[job.frame.index].frame.pixels).all() for job in again)
        assert {job.frame.clip_length for job in client.engine.jobs} == {6}
        await finish(client)


@pytest.mark.parametrize("window", [6, 64])
async def test_the_first_frame_can_be_corrected_while_it_is_in_the_window(window: int) -> None:
    async with talk(events.Configure(correction_window=window)) as client:
        client.say(click(1), *video(6))
        await client.frames(6)
        client.say(click(1, 0))
        await client.frames(12)
        assert [line[:2] for line in lines(client)[6:]] == [(i, 1) for i in range(6)]
        await finish(client)


async def test_revisions_count_up_frame_by_frame() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), *video(5))
        await client.frames(5)
        for frame_index, count in ((3, 7), (4, 8), (1, 12)):
            client.say(click(1, frame_index))
            await client.frames(count)
        assert lines(client)[5:] == [
            (3, 1, [1]),
            (4, 1, [1]),
            (4, 2, [1]),
            (1, 1, [1]),
            (2, 1, [1]),
            (3, 2, [1]),
            (4, 3, [1]),
        ]
        results = client.all(replies.FrameResult)
        # A correction on frame 1 tracks frames 3 and 4 again, as SAM 2 does, and so undoes the corrections there.
        assert [known_corrections(r, 1, 0) for r in results[5:]] == [1, 1, 2, 1, 1, 1, 1]
        assert [r.sequence for r in results] == sorted({r.sequence for r in results})
        await finish(client)


async def test_a_correction_on_the_last_frame_goes_on_with_the_next_one() -> None:
    async with talk(LIVE) as client:
        client.say(click(1), PICTURE, PICTURE)
        await client.frames(2)
        client.say(click(1, 1))
        await client.frames(3)
        client.say(PICTURE, events.EndOfVideo())
        await client.end()
        assert lines(client) == [(0, 0, [1]), (1, 0, [1]), (1, 1, [1]), (2, 0, [1])]
        assert [known_corrections(r, 1, 0) for r in client.all(replies.FrameResult)] == [0, 0, 1, 1]


async def test_new_frames_wait_for_a_correction_and_go_on_from_it() -> None:
    async with talk(LIVE) as client:
        client.say(click(1), *[PICTURE] * 4)
        await client.frames(4)
        client.engine.open_gate.clear()
        client.say(click(1, 1), PICTURE, PICTURE, events.EndOfVideo())
        await client.quiet()
        client.engine.open_gate.set()
        await client.end()
        assert lines(client)[4:] == [(1, 1, [1]), (2, 1, [1]), (3, 1, [1]), (4, 0, [1]), (5, 0, [1])]
        assert [known_corrections(r, 1, 0) for r in client.all(replies.FrameResult)[4:]] == [1] * 5


async def test_a_correction_of_the_frame_under_way_waits_for_it() -> None:
    async with talk(LIVE) as client:
        client.engine.open_gate.clear()
        client.say(click(1), PICTURE)
        await client.until(lambda: client.engine.running)
        client.say(click(1, 0))
        await client.quiet()
        assert client.problems == []
        client.engine.open_gate.set()
        await client.frames(2)
        client.say(events.EndOfVideo())
        await client.end()
        assert lines(client) == [(0, 0, [1]), (0, 1, [1])]


async def test_every_kind_of_prompt_corrects() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:20, 10:20] = True
    given = GivenPrompt(Prompt(1, 1, mask=np.ones((1, 1), np.bool_)), encode(Runs.of(mask), MaskEncoding.COCO_RLE))
    clicks = Prompt(1, 1, point_coords=[(3, 3)], point_labels=[0], keep_old_points=True)
    async with talk(PATIENT) as client:
        client.say(click(1), *video(2))
        await client.frames(2)
        client.say(events.PromptObject(given), events.PromptObject(GivenPrompt(clicks)))
        client.say(events.PromptObject(GivenPrompt(Prompt(1, 1, box=[1, 1, 9, 9]))))
        await client.until(lambda: len(client.all(replies.PromptResult)) == 4)
        await client.quiet()
        _, by_mask, by_clicks, by_box = client.engine.banks[0].prompts
        assert by_mask.mask is not None
        assert np.array_equal(by_mask.mask, square_mask(mask, len(by_mask.mask)))
        assert by_clicks.keep_old_points
        assert by_box.box is not None
        await finish(client)


# Objects


async def test_a_new_object_on_a_tracked_frame_is_tracked_to_the_last_frame_and_joins_the_others() -> None:
    async with talk(LIVE) as client:
        client.say(click(2), *[PICTURE] * 5)
        await client.frames(5)
        client.say(click(1, 2))
        await client.frames(8)
        client.say(PICTURE, events.EndOfVideo())
        await client.end()
        assert lines(client)[5:] == [(2, 1, [1]), (3, 1, [1]), (4, 1, [1]), (5, 0, [1, 2])]
        assert client.engine.banks[1].frames == [2, 3, 4, 5]


async def test_the_first_object_of_all_may_begin_on_a_tracked_frame() -> None:
    async with talk(LIVE) as client:
        client.say(*[PICTURE] * 4)
        await client.frames(4)
        client.say(click(1, 1), events.EndOfVideo())
        await client.end()
        assert lines(client)[4:] == [(1, 1, [1]), (2, 1, [1]), (3, 1, [1])]


async def test_a_prompt_before_an_objects_first_frame_is_a_conditioning_frame_of_its_own() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1, 4), *video(6))
        await client.frames(6)
        client.say(click(1, 2))
        await client.frames(10)
        assert lines(client)[6:] == [(2, 1, [1]), (3, 1, [1]), (4, 1, [1]), (5, 1, [1])]
        assert client.engine.banks[0].frames == [2, 3, 4, 5]
        assert client.engine.banks[0].corrected == set()
        await finish(client)


async def test_waiting_corrections_share_one_retracking() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), click(2), click(3), *video(8))
        await client.frames(8)
        client.say(click(2, 5), click(1, 4), click(1, 4), click(1, 6))
        await client.frames(12)
        await client.quiet()
        assert lines(client)[8:] == [(4, 1, [1]), (5, 1, [1, 2]), (6, 1, [1, 2]), (7, 1, [1, 2])]
        assert prompted(client)[3:] == [(4, 1), (4, 1), (5, 2), (6, 1)]
        again = client.all(replies.FrameResult)[8:]
        assert [known_corrections(r, 1, 0) for r in again] == [1, 1, 2, 2]
        assert [known_corrections(r, 2, 1) for r in again[1:]] == [1, 1, 1]
        assert [len(job.memories) for job in client.engine.jobs[8:] if is_tracking(job)] == [1, 2, 2]
        await finish(client)


async def test_a_correction_before_the_retracking_waits_for_the_next_and_delays_those_after_it() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), *video(6))
        await client.frames(6)
        client.engine.open_gate.clear()
        client.say(click(1, 3))
        await client.until(lambda: client.engine.running)
        client.say(click(1, 1), click(1, 5))
        await client.quiet()
        client.engine.open_gate.set()
        await client.frames(14)
        await client.quiet()
        assert [line[:2] for line in lines(client)[6:]] == [
            *[(3, 1), (4, 1), (5, 1)],
            *[(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)],
        ]
        # One after the other: frame 3 is tracked again, then frame 5 is corrected.
        known = [known_corrections(r, 1, 0) for r in client.all(replies.FrameResult)[6:]]
        assert known == [1, 1, 1, 1, 1, 1, 1, 2]
        await finish(client)


async def test_an_object_removed_during_a_retracking_is_not_tracked_further() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), click(2), *video(8))
        await client.frames(8)
        client.engine.open_gate.clear()
        client.say(click(1, 2), click(2, 3))
        await client.until(lambda: client.engine.running)
        client.say(events.RemoveObject(1))
        await client.quiet()
        client.engine.open_gate.set()
        await client.until(lambda: lines(client)[-1][:2] == (7, 1))
        await client.quiet()
        assert lines(client)[8:] == [(2, 1, [1]), *[(i, 1, [2]) for i in range(3, 8)]]
        assert client.engine.banks[0].frames == [0, 1, 2]
        await finish(client)


async def test_removing_an_object_drops_its_corrections() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), click(2), *video(4))
        await client.frames(4)
        client.engine.open_gate.clear()
        client.say(click(2, 3))
        await client.until(lambda: client.engine.running)
        client.say(click(1, 2), events.RemoveObject(1))
        await client.quiet()
        client.engine.open_gate.set()
        await client.frames(5)
        await client.quiet()
        assert lines(client)[4:] == [(3, 1, [2])]
        await finish(client)


async def test_a_prompt_for_a_removed_object_starts_a_new_one() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), *video(4))
        await client.frames(4)
        client.say(events.RemoveObject(1), click(1, 2))
        await client.frames(6)
        assert lines(client)[4:] == [(2, 1, [1]), (3, 1, [1])]
        assert len(client.engine.banks) == 2
        assert client.engine.banks[1].frames == [2, 3]
        await finish(client)


# Faults


async def test_a_correction_that_does_not_fit_its_frame_harms_nothing() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), *video(3))
        await client.frames(3)
        client.say(click(1, 1, (1000, 5)), click(7, 1, (1000, 5)))
        await client.until(lambda: len(client.problems) == 2)
        assert violations(client) == [["prompt.points[0]"]] * 2
        await finish(client)
        assert len(lines(client)) == 3, "nothing was sent again"
        assert set(client.automatic.objects) == set()


async def test_a_broken_mask_is_answered() -> None:
    broken = EncodedMask(MaskEncoding.PNG, HEIGHT, WIDTH, b"\x89PNG\r\n\x1a\n")
    given = GivenPrompt(Prompt(1, 1, mask=np.ones((1, 1), np.bool_)), broken)
    async with talk(PATIENT) as client:
        client.say(click(1), *video(3))
        await client.frames(3)
        client.say(events.PromptObject(given))
        await client.until(lambda: client.problems)
        assert violations(client)[0][0].startswith("prompt.mask")
        await finish(client)
        assert len(lines(client)) == 3


@pytest.mark.parametrize(
    ("error", "fields"),
    [(InvalidArgument.of("mask", "is too small"), ["prompt.mask"]), (ResourceExhausted("no room"), [])],
)
async def test_what_the_engine_refuses_is_answered_and_the_rest_goes_on(error: MaskletError, fields: list[str]) -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), click(2), *video(4))
        await client.frames(4)
        client.engine.refuse = lambda job: error if not is_tracking(job) and prompts_in(job)[0].object_id == 1 else None
        client.say(click(1, 2), click(2, 2))
        await client.frames(6)
        await finish(client)
        assert violations(client) == [fields]
        assert lines(client)[4:] == [(2, 1, [2]), (3, 1, [2])]


async def test_conditioning_frames_stay_bounded() -> None:
    async with talk(PATIENT) as client:
        for index in range(8, 8 + MAX_CONDITIONING_FRAMES):
            client.say(click(1, index))
        client.say(*video(40))
        await client.frames(40)
        client.say(click(1, 3))
        await client.until(lambda: client.problems)
        assert isinstance(client.all(replies.Problem)[0].error, ResourceExhausted)
        assert "has prompts on 32 frames, the most allowed" in client.problems[0]
        client.say(click(1, 30))  # a correction is no conditioning frame
        await client.until(lambda: lines(client)[-1][:2] == (39, 1))
        await finish(client)
        assert len(client.problems) == 1


async def test_after_the_last_result_there_is_nothing_to_correct() -> None:
    async with talk() as client:
        client.say(click(1), *video(3))
        await client.end()
    assert len(client.all(replies.Done)) == 1


async def test_a_client_that_half_closes_is_not_waited_for() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), *video(3))
        client.half_close()
        await client.end()
        assert client.all(replies.Done) == [replies.Done(3)]


# Taken back


async def test_a_prompt_that_waits_can_be_taken_back() -> None:
    async with talk(LIVE) as client:
        client.say(click(1), click(1, 2), click(2, 2), events.ClearPrompts(1, 2), *[PICTURE] * 4, events.EndOfVideo())
        await client.end()
        assert client.problems == []
        assert [(p.frame_index, p.object.object_id) for p in client.all(replies.PromptResult)] == [(0, 1), (2, 2)]


async def test_a_correction_that_waits_can_be_taken_back() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), click(2), *video(4))
        await client.frames(4)
        client.engine.open_gate.clear()
        client.say(click(2, 3))
        await client.until(lambda: client.engine.running)
        client.say(click(1, 2), events.ClearPrompts(1, 2))
        await client.quiet()
        client.engine.open_gate.set()
        await client.frames(5)
        await finish(client)
        assert lines(client)[4:] == [(3, 1, [2])]


async def test_what_was_applied_can_not_be_taken_back_here() -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), *video(4))
        await client.frames(4)
        client.say(click(1, 2))
        await client.frames(6)
        client.say(*[events.ClearPrompts(*where) for where in ((1, 0), (1, 2), (1, 1), (2, 0))])
        await client.until(lambda: len(client.problems) == 4)
        errors = [problem.error for problem in client.all(replies.Problem)]
        assert [type(error) for error in errors] == [FailedPrecondition, FailedPrecondition, NotFound, NotFound]
        assert "was applied already: correct the object by another prompt, or remove it" in errors[0].message
        assert "no prompt for object 1 on frame 1 waits" in errors[2].message
        await finish(client)
