"""Waiting prompts: what is taken, kept and refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.session.automatic.correction_window import CorrectionWindow
from masklet_server.session.automatic.waiting_prompts import WaitingPrompts
from masklet_server.session.jobs import TrackedFrame
from masklet_server.session.limits import SessionLimits
from masklet_server.session.prompts import GivenPrompt
from masklet_server.video.frame import Frame

LIMITS = SessionLimits(max_objects=4, max_mask_bytes=100)


def click(object_id: int = 1, frame_index: int = 0, xy: tuple[float, float] = (5, 5)) -> GivenPrompt:
    return GivenPrompt(Prompt(object_id, frame_index, point_coords=[xy]))


def mask_prompt(mask: EncodedMask, frame_index: int = 0) -> GivenPrompt:
    return GivenPrompt(Prompt(1, frame_index, mask=np.ones((1, 1), np.bool_)), mask)


def advance(waiting: WaitingPrompts, frame_index: int) -> None:
    while waiting.next_frame < frame_index:
        waiting.take(waiting.next_frame)


def test_prompts_come_back_on_their_frame_in_order() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    first, second, later = click(2, 1, (1, 1)), click(1, 1, (2, 2)), click(2, 3)
    for given_prompt in (later, first, second):
        waiting.add(given_prompt)
    assert [waiting.take(i) for i in range(4)] == [[], [first, second], [], [later]]
    assert len(waiting) == 0


def test_a_prompt_for_a_taken_frame_is_refused_and_told_which_is_next() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    advance(waiting, 3)
    with pytest.raises(FailedPrecondition, match=r"too late for frame 2, .* frame 3 is the next one"):
        waiting.add(click(frame_index=2))
    waiting.add(click(frame_index=3))


def test_frames_are_taken_in_order() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    waiting.take(1)
    with pytest.raises(ValueError, match="frame 2 comes next"):
        waiting.take(1)


def test_frames_that_are_left_out_hand_their_prompts_on() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    given = [click(i, f) for i, f in ((1, 4), (2, 2), (3, 3), (4, 2))]
    for one in given:
        waiting.add(one)
    assert waiting.take(4) == [given[1], given[3], given[2], given[0]]
    assert waiting.next_frame == 5
    assert waiting.take(6) == []
    waiting.add(click(1, 7))
    assert [one.frame_index for one in waiting.take(7)] == [7]


def test_the_number_of_objects_is_bounded_with_those_that_are_tracked() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    waiting.add(click(1), tracked=[7, 8])
    waiting.add(click(2), tracked=[7, 8])
    with pytest.raises(ResourceExhausted, match="object 3 is one too many: max_objects is 4"):
        waiting.add(click(3), tracked=[7, 8])
    waiting.add(click(7, 5), tracked=[7, 8])


def test_the_number_of_waiting_prompts_is_bounded() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    for frame_index in range(4):
        waiting.add(click(1, frame_index))
    with pytest.raises(ResourceExhausted, match="4 prompts wait"):
        waiting.add(click(1, 4))
    waiting.take(0)
    waiting.add(click(1, 4))


def test_waiting_masks_are_bounded_in_bytes() -> None:
    waiting = WaitingPrompts(SessionLimits(max_mask_bytes=100), CorrectionWindow(0, 0))
    mask = EncodedMask(MaskEncoding.COCO_RLE, 10, 10, bytes(100))
    for frame_index in range(4):
        waiting.add(mask_prompt(mask, frame_index))
    with pytest.raises(ResourceExhausted, match="would take 500 bytes, at most 400"):
        waiting.add(mask_prompt(mask, 4))


def test_sizes_are_held_as_soon_as_they_are_known() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    inside, outside = click(1, 0, (63, 47)), click(2, 0, (65, 5))
    waiting.add(outside)
    waiting.add(inside)
    errors = [one.error for one in waiting.fit(48, 64)]
    assert [violations_of(error) for error in errors] == [["prompt.points[0]"]]
    assert "(65, 5) lies outside the picture of 64x48" in errors[0].message
    with pytest.raises(InvalidArgument, match="outside"):
        waiting.add(click(3, 1, (5, 49)))
    assert waiting.take(0) == [inside]


def test_a_mask_of_another_size_is_refused_undecoded() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    waiting.fit(48, 64)
    with pytest.raises(InvalidArgument, match="is 10x10, the video 64x48") as raised:
        waiting.add(mask_prompt(EncodedMask(MaskEncoding.COCO_RLE, 10, 10, b"?")))
    assert violations_of(raised.value) == ["prompt.mask"]


def test_the_end_answers_what_lies_beyond_it() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    waiting.add(click(1, 90))
    advance(waiting, 48)
    errors = [one.error for one in waiting.end(48)]
    assert [violations_of(error) for error in errors] == [["prompt.frame_index"]]
    assert "is 90 (object 1), but the video has 48 frames, 0 to 47" in errors[0].message
    with pytest.raises(InvalidArgument, match="has 48 frames"):
        waiting.add(click(1, 48))
    with pytest.raises(FailedPrecondition, match="too late"):
        waiting.add(click(1, 47))


def test_dropping_an_object_leaves_the_others() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    for given_prompt in (click(1), click(2), click(1, 3)):
        waiting.add(given_prompt)
    assert waiting.drop(1) == 2
    assert waiting.drop(1) == 0
    assert waiting.object_ids == {2}
    assert waiting.frames_of(2) == {0}


ADD = st.tuples(st.just("add"), st.integers(1, 6), st.integers(0, 8))
DROP = st.tuples(st.just("drop"), st.integers(1, 6), st.just(0))
TAKE = st.tuples(st.just("take"), st.just(0), st.just(0))


@given(st.lists(st.one_of(ADD, ADD, DROP, TAKE), max_size=60))
def test_waiting_prompts_are_a_bounded_map_from_frames_to_prompts(actions: list[tuple[str, int, int]]) -> None:
    waiting, model, taken = WaitingPrompts(LIMITS, CorrectionWindow(0, 0)), list[GivenPrompt](), 0
    for action, object_id, frame_index in actions:
        if action == "add":
            given_prompt = click(object_id, frame_index)
            ids = {p.object_id for p in model}
            fits = frame_index >= taken and len(model) < 4 and (object_id in ids or len(ids) < 4)
            if fits:
                waiting.add(given_prompt)
                model.append(given_prompt)
            else:
                with pytest.raises((FailedPrecondition, ResourceExhausted)):
                    waiting.add(given_prompt)
        elif action == "drop":
            assert waiting.drop(object_id) == sum(p.object_id == object_id for p in model)
            model = [p for p in model if p.object_id != object_id]
        else:
            assert waiting.take(taken) == [p for p in model if p.frame_index == taken]
            model = [p for p in model if p.frame_index != taken]
            taken += 1
        assert len(waiting) == len(model)
        assert waiting.object_ids == {p.object_id for p in model}


def violations_of(error: MaskletError | Any) -> list[str]:
    return [violation.field for violation in error.violations]


# Corrections and times


def window_after(count: int) -> CorrectionWindow:
    window = CorrectionWindow(3, 10**9)
    for index in range(count):
        frame = Frame(index, index, Fraction(1, 25), np.zeros((2, 2, 3), np.uint8), 4, 4)
        window.add(TrackedFrame(frame, index), [])
    return window


def timed(seconds: float, object_id: int = 1) -> GivenPrompt:
    return GivenPrompt(Prompt(object_id, pts_seconds=seconds, point_coords=[(5, 5)]))


async def test_late_prompts_are_corrections_and_come_in_order_for_each_object() -> None:
    waiting = WaitingPrompts(LIMITS, window_after(6))
    advance(waiting, 6)
    assert not waiting.corrected.is_set()
    a, b, c, d = click(1, 4), click(2, 5), click(1, 3), click(1, 5)
    for given_prompt in (a, b, c, d):
        waiting.add(given_prompt)
    assert waiting.corrected.is_set()
    assert waiting.first_corrections() == {1: 4, 2: 5}
    assert waiting.take_corrections(4, 5, {7}) == []
    assert waiting.take_corrections(3, 3) == [], "what came before goes first"
    assert waiting.take_corrections(4, 5) == [a, b], "and what came after it waits with it"
    assert waiting.first_corrections() == {1: 3}
    assert waiting.take_corrections(3, 5) == [c, d]
    assert not waiting.corrected.is_set()
    assert len(waiting) == 0


def test_late_prompts_end_with_the_window_and_with_the_video() -> None:
    waiting = WaitingPrompts(LIMITS, window_after(6))
    advance(waiting, 6)
    with pytest.raises(InvalidArgument, match="frames 3 to 5 can"):
        waiting.add(click(1, 2))
    waiting.add(click(1, 3))
    errors = [one.error for one in waiting.end(6)]
    assert ["nothing to correct any more" in error.message for error in errors] == [True]
    assert len(waiting) == 0
    with pytest.raises(FailedPrecondition, match="the last result was sent already"):
        waiting.add(click(1, 5))


def test_a_change_of_size_does_not_touch_corrections() -> None:
    waiting = WaitingPrompts(LIMITS, window_after(2))
    waiting.fit(40, 60)
    advance(waiting, 2)
    waiting.add(click(1, 1, (50, 30)))
    waiting.add(click(2, 2, (50, 30)))
    assert len(waiting.fit(20, 30)) == 1
    assert waiting.take_corrections(0, 1) != []


def test_prompts_are_dropped_by_object_or_by_frame() -> None:
    waiting = WaitingPrompts(LIMITS, window_after(2))
    advance(waiting, 2)
    for given_prompt in (click(1, 1), click(1, 4), timed(5.0)):
        waiting.add(given_prompt)
    assert [waiting.drop(1, 0), waiting.drop(1, 1), waiting.drop(2), len(waiting)] == [0, 1, 0, 2]
    assert not waiting.corrected.is_set()
    assert [waiting.drop(1), len(waiting)] == [2, 0]


def test_times_find_their_frames_as_these_come() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    for given_prompt in (timed(0.05), timed(0.2, 2), timed(0.06, 3)):
        waiting.add(given_prompt)
    found = []
    for index in range(4):
        waiting.place(index, index * 40_000_000, upcoming=(index + 1) * 40_000_000, last=index == 3)
        found.append([(given.object_id, given.frame_index) for given in waiting.take(index)])
    assert found == [[], [(1, 1), (3, 1)], [], [(2, 3)]]
    assert not waiting.waits_for_times


def test_times_count_towards_the_bounds() -> None:
    waiting = WaitingPrompts(LIMITS, CorrectionWindow(0, 0))
    waiting.add(timed(1.0))
    assert (waiting.object_ids, waiting.times_of(1), waiting.frames_of(1)) == ({1}, 1, set())
    for _ in range(3):
        waiting.add(timed(2.0))
    with pytest.raises(ResourceExhausted, match="4 prompts wait"):
        waiting.add(timed(3.0))
