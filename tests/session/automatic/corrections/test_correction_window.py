"""Frames that can be corrected, and what memory banks keep for them."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from masklet_server.budgets.budget import Bounds, Budget, Share
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.session.automatic.correction_window import CorrectionWindow
from masklet_server.session.jobs import TrackedFrame
from masklet_server.video.frame import Frame
from tests.support.fakes import FAKE_CORRECTION_BYTES, FakeBank

PIXELS = np.zeros((2, 2, 3), np.uint8)


def frame_of(index: int, step: int | None = None, skipped: tuple[int, ...] = ()) -> TrackedFrame:
    frame = Frame(index, index, Fraction(1, 25), PIXELS, 4, 4)
    return TrackedFrame(frame, index if step is None else step, skipped)


def window_after(count: int, *, window: int = 5, max_bytes: int = 10**9) -> CorrectionWindow:
    frames = CorrectionWindow(window, max_bytes)
    for index in range(count):
        frames.add(frame_of(index), [])
    return frames


def test_the_last_frames_are_kept_and_the_others_told() -> None:
    frames = window_after(9)
    assert (len(frames), frames.nbytes) == (5, 5 * 12)
    assert [frames.find(index) is not None for index in range(10)] == [False] * 4 + [True] * 5 + [False]
    refusal = frames.refusal(3)
    assert refusal is not None
    assert [v.field for v in refusal.violations] == ["prompt.frame_index"]
    assert "is 3, which was tracked too long ago to be corrected; frames 4 to 8 can." in refusal.message
    assert frames.refusal(4) is None
    assert frames.refusal(9) is None, "the frame under way can be, once it is tracked"
    frames.clear()
    assert frames.nbytes == 0


def test_a_window_of_nothing_keeps_nothing() -> None:
    assert len(window_after(3, window=0)) == 0


async def test_a_skipped_frames_prompts_are_the_next_ones() -> None:
    frames = CorrectionWindow(3, 10**9)
    for step, (index, skipped) in enumerate([(0, ()), (4, (1, 2, 3)), (5, ()), (9, (6, 7, 8))]):
        frames.add(frame_of(index, step, skipped), [])
    found = [frames.find(index) for index in (0, 1, 3, 4, 5, 6, 9)]
    assert [None if one is None else one.index for one in found] == [None, 4, 4, 4, 5, 9, 9]
    second = frames.find(4)
    assert second is not None
    assert (second.first_index, second.index) == (1, 4)
    third = await frames.after(second)
    assert third is not None
    assert third.index == 5
    last = frames.find(9)
    assert last is not None
    assert await frames.after(last) is None
    refusal = frames.refusal(0)
    assert refusal is not None
    assert "frames 1 to 9 can" in refusal.message


@given(
    st.integers(1, 8),
    st.integers(0, 1500),
    st.lists(st.sampled_from(["frame", "frame", "object", "remove"]), max_size=40),
)
def test_the_bounds_hold_whatever_comes(window: int, max_bytes: int, steps: list[str]) -> None:
    frames, banks = CorrectionWindow(window, max_bytes), [FakeBank(0, window)]
    index = 0
    for step in steps:
        if step == "object":
            banks.append(FakeBank(len(banks), window))
        elif step == "remove" and banks:
            banks.pop()
        elif step == "frame":
            real = cast("list[MemoryBank]", banks)
            frames.before_tracking(real)
            for bank in banks:
                bank.advance(index)
            frames.add(frame_of(index), real)
            index += 1
            assert len(frames) <= window
            assert frames.nbytes + FAKE_CORRECTION_BYTES * sum(len(bank.correctable) for bank in banks) <= max_bytes
            for bank in banks:
                reach = range(max(index - len(frames), bank.frames[0]), index)
                assert bank.correctable == set(reach), "each kept frame can be corrected, and no other costs anything"


def test_windows_share_memory() -> None:
    budget = Budget(
        "max_correction_memory_bytes", "frames", Bounds(total=3 * PIXELS.nbytes, per_client=2 * PIXELS.nbytes)
    )
    first, second = (CorrectionWindow(64, 10**9, Share(budget, client)) for client in "ab")
    for index in range(5):
        first.add(frame_of(index), ())
    assert (len(first), budget.used) == (2, 2 * PIXELS.nbytes)
    for index in range(5):
        second.add(frame_of(index), ())
    assert (len(first), len(second), budget.used) == (2, 1, 3 * PIXELS.nbytes)
    assert first.refusal(2) is not None
    assert first.refusal(3) is None
    first.clear()
    second.add(frame_of(5), ())
    assert (len(second), budget.used) == (2, 2 * PIXELS.nbytes)
    second.narrow(1, ())
    second.clear()
    assert budget.used == 0
