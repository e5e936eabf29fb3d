"""What memory policies decide and remember, without a network."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from masklet_server.engine.memory.policies import (
    MAX_SELECTED,
    Candidates,
    DistractorAware,
    MemoryPolicy,
    MotionAware,
    Policy,
    mask_box,
    new_policy,
)

SIDE = 32
EMPTY = np.zeros((SIDE, SIDE), np.bool_)
POLICIES = [DistractorAware, MotionAware]


def square(x: int, y: int = 10, side: int = 8) -> npt.NDArray[np.bool_]:
    mask = EMPTY.copy()
    mask[y : y + side, x : x + side] = True
    return mask


def offer(*masks: npt.NDArray[np.bool_], ious: tuple[float, ...] = (0.9, 0.5, 0.4), score: float = 5.0) -> Candidates:
    """Three candidates; the first mask is repeated if fewer are given."""
    three = [*masks, *[masks[0]] * (3 - len(masks))]
    return Candidates(np.stack(three), np.array(ious, np.float32), score)


def features(frame_index: int) -> torch.Tensor:
    return torch.full((1, 2, 2), frame_index, dtype=torch.bfloat16)


def step(policy: Policy[Any], frame_index: int, candidates: Candidates, *, window: int = 0) -> int:
    chosen = policy.choose(frame_index, candidates)
    policy.remember(frame_index, features(frame_index))
    policy.forget(frame_index, window)
    return chosen


def selected(policy: Policy[Any], frame_index: int) -> list[tuple[int, int]]:
    """Pairs of age and frame, read from the memories themselves."""
    return [(age, int(memory.flatten()[0])) for age, memory in policy.memories_before(frame_index)]


HIDDEN = offer(EMPTY, score=-5.0, ious=(0.1, 0.1, 0.1))
LOOK_ALIKE = offer(square(2), square(2) | square(20, 18))


def test_sam2_needs_no_state() -> None:
    assert new_policy(MemoryPolicy.SAM2) is None
    for kind in (MemoryPolicy.DISTRACTOR_AWARE, MemoryPolicy.MOTION_AWARE):
        policy = new_policy(kind)
        assert policy is not None
        assert policy.kind is kind


def test_boxes_are_exclusive_at_their_far_side() -> None:
    assert mask_box(square(3, 10, 4)) == (3, 10, 7, 14)
    assert mask_box(EMPTY) is None


# Distractor aware


def test_recent_memories_are_the_last_six() -> None:
    policy = DistractorAware()
    for index in range(1, 34):
        step(policy, index, offer(square(2)))
    assert selected(policy, 34) == [(6, 28), (5, 29), (4, 30), (3, 31), (2, 32), (1, 33)]


def test_frames_without_the_object_are_not_remembered() -> None:
    policy = DistractorAware()
    for index in range(1, 8):
        step(policy, index, offer(square(2)))
    before = selected(policy, 8)
    for index in range(8, 40):
        step(policy, index, HIDDEN if index % 2 else offer(EMPTY))
    assert selected(policy, 40) == before == [(6, 2), (5, 3), (4, 4), (3, 5), (2, 6), (1, 7)]


def test_a_frame_with_a_look_alike_becomes_an_anchor_that_has_no_age() -> None:
    policy = DistractorAware()
    policy.note_prompt(0, square(2), None)
    step(policy, 1, LOOK_ALIKE)
    for index in range(2, 100):
        step(policy, index, offer(square(2)))
    assert selected(policy, 100)[0] == (0, 1)
    assert len(selected(policy, 100)) == MAX_SELECTED


@pytest.mark.parametrize(
    "candidates",
    [
        offer(square(2), square(2) | square(4)),  # the other one hardly differs
        offer(square(2), square(2, side=6)),  # nothing of it lies elsewhere
        offer(square(2), square(2) | square(20, 18), ious=(0.79, 0.5, 0.4)),  # not sure of itself
        offer(square(2, side=12), square(2) | square(20, 18)),  # twice its usual size
        offer(square(2), square(2) | square(20, 18), score=-1.0),  # not there
    ],
)
def test_an_anchor_must_be_beyond_doubt(candidates: Candidates) -> None:
    policy = DistractorAware()
    policy.note_prompt(0, square(2), None)
    step(policy, 1, candidates)
    assert all(age > 0 for age, _ in selected(policy, 2))


def test_a_first_frame_has_no_usual_size_to_be_held_against() -> None:
    policy = DistractorAware()
    step(policy, 1, LOOK_ALIKE)
    assert selected(policy, 2) == [(1, 1)]


def test_there_are_three_anchors_the_newest_some_frames_apart() -> None:
    policy = DistractorAware()
    policy.note_prompt(0, square(2), None)
    for index in range(1, 40):
        step(policy, index, LOOK_ALIKE)
    # Frames 1, 6, 11 ... were anchors.
    assert selected(policy, 40) == [(0, 26), (0, 31), (0, 36), (3, 37), (2, 38), (1, 39)]


def test_distractor_aware_takes_the_best_candidate_as_sam2_does() -> None:
    assert step(DistractorAware(), 1, offer(square(2), square(20), ious=(0.4, 0.8, 0.6))) == 1


# Motion aware


def moving(frame_index: int) -> npt.NDArray[np.bool_]:
    return square(frame_index // 2)


def tracked(frames: int) -> MotionAware:
    """A policy whose object was tracked up to a frame."""
    policy = MotionAware()
    policy.note_prompt(0, moving(0), None)
    for index in range(1, frames + 1):
        assert step(policy, index, offer(moving(index))) == 0
    return policy


@pytest.mark.parametrize(("frames", "chosen"), [(13, 0), (14, 1), (20, 1)])
def test_motion_has_a_say_once_it_is_known(frames: int, chosen: int) -> None:
    """Fifteen frames, with the prompted one."""
    policy = tracked(frames)
    away, here = square(22, 22), moving(frames + 1)
    assert step(policy, frames + 1, offer(away, here, here, ious=(0.8, 0.75, 0.1))) == chosen


def test_motion_is_outweighed_by_a_much_better_mask() -> None:
    away, here = square(22, 22), moving(21)
    assert step(tracked(20), 21, offer(away, here, here, ious=(0.95, 0.7, 0.1))) == 0


@pytest.mark.parametrize("interruption", [HIDDEN, offer(square(2), ious=(0.25, 0.1, 0.1))])
def test_a_lost_object_has_no_motion_until_it_is_found_again(interruption: Candidates) -> None:
    policy = tracked(20)
    step(policy, 21, interruption)
    away, here = square(22, 22), moving(22)
    assert step(policy, 22, offer(away, here, here, ious=(0.8, 0.75, 0.1))) == 0


@pytest.mark.parametrize(
    "bad",
    [
        offer(square(2), ious=(0.5, 0.1, 0.1)),
        offer(square(2), score=0.0),
        offer(EMPTY),
        offer(square(22, 22)),  # nowhere near where it must be
    ],
)
def test_only_good_frames_are_remembered_but_the_last_one_always(bad: Candidates) -> None:
    policy = tracked(20)
    step(policy, 21, bad)
    assert selected(policy, 22) == [(6, 16), (5, 17), (4, 18), (3, 19), (2, 20), (1, 21)]
    step(policy, 22, HIDDEN)
    assert selected(policy, 23) == [(6, 16), (5, 17), (4, 18), (3, 19), (2, 20), (1, 22)]


def test_good_frames_outlast_any_absence() -> None:
    policy = tracked(20)
    for index in range(21, 250):
        step(policy, index, HIDDEN)
    assert selected(policy, 250) == [(6, 16), (5, 17), (4, 18), (3, 19), (2, 20), (1, 249)]


def test_a_prompt_starts_the_motion_again() -> None:
    policy = tracked(20)
    policy.note_prompt(21, square(22, 22), None)
    away, here = square(4, 4), square(22, 22)
    assert step(policy, 22, offer(away, here, here, ious=(0.8, 0.75, 0.1))) == 0


# Both


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("window", [0, 8])
def test_memories_are_bounded(make: type[Policy[Any]], window: int) -> None:
    policy = make()
    policy.note_prompt(0, square(2), None)
    rng = np.random.default_rng(0)
    most = 0
    for index in range(1, 600):
        kinds = [offer(square(2)), LOOK_ALIKE, HIDDEN, offer(square(int(rng.integers(20))))]
        step(policy, index, kinds[rng.integers(4)], window=window)
        assert len(selected(policy, index + 1)) <= MAX_SELECTED
        most = max(most, len(policy.selected))
        assert len(policy.notes) <= 11 + window
    assert most <= MAX_SELECTED + 1 + window
    assert policy.nbytes == len(policy.selected) * 8


@pytest.mark.parametrize("make", POLICIES)
def test_ages_are_1_to_6_by_order_of_selection(make: type[Policy[Any]]) -> None:
    policy = make()
    for index in range(1, 60):
        step(policy, index, HIDDEN if index % 3 == 0 else offer(square(2)))
        ages = [age for age, _ in selected(policy, index + 1) if age]
        assert ages == list(range(len(ages), 0, -1))


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("back", [1, 3, 8])
def test_after_rewinding_it_goes_on_as_if_nothing_had_been_seen(make: type[Policy[Any]], back: int) -> None:
    """Everything that a correction inside the window needs is still there."""
    rng = np.random.default_rng(back)
    kinds = [offer(square(2)), LOOK_ALIKE, HIDDEN, offer(square(4))]
    shown = [kinds[rng.integers(4)] for _ in range(60)]
    straight, rewound = make(), make()
    for policy in (straight, rewound):
        policy.note_prompt(0, square(2), None)
    for index in range(1, 40 + back):
        if index < 40:
            step(straight, index, shown[index], window=9)
        step(rewound, index, shown[index] if index < 40 else shown[-index], window=9)
    rewound.rewind(39)
    for index in range(40, 60):
        assert selected(rewound, index) == selected(straight, index)
        assert step(rewound, index, shown[index], window=9) == step(straight, index, shown[index], window=9)


@pytest.mark.parametrize("make", POLICIES)
def test_a_correction_replaces_what_was_remembered(make: type[Policy[Any]]) -> None:
    policy = make()
    for index in range(1, 11):
        step(policy, index, offer(square(2)), window=4)
    policy.note_prompt(10, square(6), torch.full((1, 2, 2), 99, dtype=torch.bfloat16))
    assert selected(policy, 11)[-1] == (1, 99)
    policy.note_prompt(10, EMPTY, features(10))
    assert 10 not in policy.selected, "the object is said not to be there"


@pytest.mark.parametrize("make", POLICIES)
def test_copies_do_not_share_their_dictionaries(make: type[Policy[Any]]) -> None:
    policy = make()
    for index in range(1, 20):
        step(policy, index, LOOK_ALIKE)
    twin, before = policy.copy(), selected(policy, 20)
    for index in range(20, 40):
        step(twin, index, HIDDEN)
    twin.rewind(3)
    assert selected(policy, 20) == before
    assert policy.to_json() != twin.to_json()


@pytest.mark.parametrize("make", POLICIES)
def test_it_is_written_down_and_read_back(make: type[Policy[Any]]) -> None:
    policy, again = make(), make()
    policy.note_prompt(0, square(2), None)
    for index in range(1, 30):
        step(policy, index, LOOK_ALIKE if index % 4 else offer(square(3)), window=3)
    again.load(json.loads(json.dumps(policy.to_json())), dict(policy.tensors))
    assert again.to_json() == policy.to_json()
    assert selected(again, 30) == selected(policy, 30)
