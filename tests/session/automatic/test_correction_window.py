"""Frames that can be corrected, and the times that prompts name."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet.errors import InvalidArgument
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.session.automatic.correction_window import KeptFrames, Timetable
from masklet_server.session.automatic.frame_reader import TakenFrame
from masklet_server.video.frame import Frame
from tests.support.fakes import FAKE_CORRECTION_BYTES, FakeBank

PIXELS = np.zeros((2, 2, 3), np.uint8)


def taken(index: int, step: int | None = None, skipped: tuple[int, ...] = ()) -> TakenFrame:
    frame = Frame(index, index, Fraction(1, 25), PIXELS, 4, 4)
    return TakenFrame(frame, index if step is None else step, skipped)


def kept_frames(count: int, *, window: int = 5, max_bytes: int = 10**9) -> KeptFrames:
    kept = KeptFrames(window, max_bytes)
    for index in range(count):
        kept.add(taken(index), None, [])
    return kept


def test_the_last_frames_are_kept_and_the_others_told() -> None:
    kept = kept_frames(9)
    assert (len(kept), kept.nbytes) == (5, 5 * 12)
    assert [kept.find(index) is not None for index in range(10)] == [False] * 4 + [True] * 5 + [False]
    refusal = kept.refusal(3)
    assert refusal is not None
    assert [v.field for v in refusal.violations] == ["prompt.frame_index"]
    assert "is 3, which was tracked too long ago to be corrected; frames 4 to 8 can." in refusal.message
    assert kept.refusal(4) is None
    assert kept.refusal(9) is None, "the frame under way can be, once it is tracked"
    kept.clear()
    assert kept.nbytes == 0


def test_a_window_of_nothing_keeps_nothing() -> None:
    assert len(kept_frames(3, window=0)) == 0


async def test_a_skipped_frames_prompts_are_the_next_ones() -> None:
    kept = KeptFrames(3, 10**9)
    for step, (index, skipped) in enumerate([(0, ()), (4, (1, 2, 3)), (5, ()), (9, (6, 7, 8))]):
        kept.add(taken(index, step, skipped), None, [])
    found = [kept.find(index) for index in (0, 1, 3, 4, 5, 6, 9)]
    assert [None if one is None else one.index for one in found] == [None, 4, 4, 4, 5, 9, 9]
    second = kept.find(4)
    assert second is not None
    assert (second.first_index, second.index) == (1, 4)
    third = await kept.after(second)
    assert third is not None
    assert third.index == 5
    last = kept.find(9)
    assert last is not None
    assert await kept.after(last) is None
    refusal = kept.refusal(0)
    assert refusal is not None
    assert "frames 1 to 9 can" in refusal.message


@given(
    st.integers(1, 8),
    st.integers(0, 1500),
    st.lists(st.sampled_from(["frame", "frame", "object", "remove"]), max_size=40),
)
def test_the_bounds_hold_whatever_comes(window: int, max_bytes: int, steps: list[str]) -> None:
    kept, banks = KeptFrames(window, max_bytes), [FakeBank(0, window)]
    index = 0
    for step in steps:
        if step == "object":
            banks.append(FakeBank(len(banks), window))
        elif step == "remove" and banks:
            banks.pop()
        elif step == "frame":
            real = cast("list[MemoryBank]", banks)
            kept.make_room(real)
            for bank in banks:
                bank.advance(index)
            kept.add(taken(index), None, real)
            index += 1
            assert len(kept) <= window
            assert kept.nbytes + FAKE_CORRECTION_BYTES * sum(len(bank.correctable) for bank in banks) <= max_bytes
            for bank in banks:
                reach = range(max(index - len(kept), bank.frames[0]), index)
                assert bank.correctable == set(reach), "each kept frame can be corrected, and no other costs anything"


# Times


def timetable(*milliseconds: int, most: int = 10) -> Timetable:
    times = Timetable(most)
    for index, time in enumerate(milliseconds):
        times.add(index, time * 10**6)
    return times


@pytest.mark.parametrize(
    ("time", "upcoming", "nearest"),
    [
        (-7, None, 0),
        (20, None, 0),
        (21, None, 1),
        (80, None, 2),
        (81, None, None),
        (81, 120, 2),
        (100, 120, 2),
        (101, 120, None),
        (81, 70, 2),
        (500, 120, None),
    ],
)
def test_the_nearest_frame_is_told_once_it_is_known(time: int, upcoming: int | None, nearest: int | None) -> None:
    times = timetable(0, 40, 80)
    assert times.nearest(time * 10**6, None if upcoming is None else upcoming * 10**6) == nearest


def test_without_frames_nothing_is_known_and_after_the_last_one_everything() -> None:
    times = Timetable(3)
    assert times.nearest(0) is None
    times.add(0, 0)
    assert times.nearest(10**9) is None
    times.is_complete = True
    assert times.nearest(10**9) == 0


def test_times_may_repeat_and_go_back() -> None:
    times = timetable(50, 50, 10)
    assert times.nearest(50 * 10**6) is None, "a later frame may still come as near"
    assert times.nearest(9 * 10**6) == 2
    assert times.nearest(50 * 10**6, upcoming=200 * 10**6) == 0


def test_what_is_forgotten_is_told() -> None:
    times = timetable(0, 40, 80, 120, most=3)
    times.check(40 * 10**6)
    with pytest.raises(InvalidArgument, match=r"is 0.039, .* the oldest is frame 1 at 0.04 s") as caught:
        times.check(39 * 10**6)
    assert [v.field for v in caught.value.violations] == ["prompt.pts_seconds"]
    timetable(10, 40, most=3).check(0)


@pytest.mark.parametrize(("time", "nearest"), [(10**300, 1), (-(10**300), 0), (1, 1), (-2, 0), (0, 1), (-1, 0)])
def test_times_may_lie_as_far_apart_as_they_can(time: int, nearest: int) -> None:
    times = Timetable(10)
    times.add(0, -(2**63))
    times.add(1, 2**63 - 1)
    times.is_complete = True
    assert times.nearest(time) == nearest


def test_all_times_are_remembered_where_that_is_wanted() -> None:
    times = Timetable(2)
    for index in range(100):
        times.add(index, index * 40 * 10**6, forget=False)
    times.check(-1)
    assert [times.nearest(time * 10**6) for time in (-1, 59, 61, 60, 3960)] == [0, 1, 2, 1, 99]
