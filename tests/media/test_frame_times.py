"""Times of frames: equal ones, missing ones, and clocks that start anew."""

from __future__ import annotations

from fractions import Fraction

import pytest

from masklet_media.frame_times import FrameClock, PromisedFrames

MILLISECOND = Fraction(1, 1000)


def times(stamps: list[int | None], *, may_restart: bool = False, step: Fraction = Fraction(40)) -> list[int]:
    clock = FrameClock(step, MILLISECOND, may_restart=may_restart)
    return [clock.time_of(stamp) for stamp in stamps]


@pytest.mark.parametrize(("stamps", "expected"), [
    ([0, 40, 80], [0, 40, 80]),
    ([0, 0, 40, 40, 80], [0, 0, 40, 40, 80]),  # equal stamps do not drift
    ([0, 80, 40, 120], [0, 80, 80, 120]),
    ([None, None, None], [0, 40, 80]),
    ([100, None, None, 230], [100, 140, 180, 230]),
    ([-40, 0, 40], [-40, 0, 40]),
])  # fmt: skip
def test_times_never_go_back(stamps: list[int | None], expected: list[int]) -> None:
    assert times(stamps) == expected


def test_frames_without_stamps_do_not_drift_where_the_step_is_no_whole_number() -> None:
    assert times([None] * 31, step=Fraction(100, 3))[30] == 1000


@pytest.mark.parametrize(("stamps", "expected"), [
    ([1000, 1040, 0, 40], [1000, 1040, 1080, 1120]),
    ([1000, 1040, 60_000, 60_040], [1000, 1040, 1080, 1120]),
    ([1000, 1040, 5000, 5040], [1000, 1040, 5000, 5040]),  # a gap
    ([1000, 1040, 1020, 1080], [1000, 1040, 1040, 1080]),  # less than a frame back
    ([500, 540, 0, 40, 80, 0, 40], [500, 540, 580, 620, 660, 700, 740]),
])  # fmt: skip
def test_a_clock_that_starts_anew(stamps: list[int | None], expected: list[int]) -> None:
    assert times(stamps, may_restart=True) == expected
    assert times([1000, 1040, 0, 40]) == [1000, 1040, 1040, 1040], "where the container's clock cannot"


def test_frames_that_do_not_come_are_told_only_if_the_decoder_failed() -> None:
    for is_damaged in (False, True):
        promised = PromisedFrames(in_decoding_order=False)
        for pts, dts in ((0, 0), (120, 40), (40, 80), (80, 120)):
            promised.add(pts, dts, may_restart=False)
        if is_damaged:
            promised.fail(80)
        assert promised.give(0, 0) == []
        assert promised.give(0, 80) == ([(0, 40)] if is_damaged else [])
        assert promised.rest() == ([(0, 120)] if is_damaged else [])


def test_decoding_times_of_packets_that_failed_are_not_given_to_others() -> None:
    promised = PromisedFrames(in_decoding_order=True)
    for dts in (0, 1, 2, 3):
        promised.add(None, dts, may_restart=False)
    promised.fail(1)
    given = []
    for _ in range(3):
        stamp = promised.stamp_of(None)
        given.append((stamp, promised.give(0, stamp)))
    assert given == [(0, []), (2, [(0, 1)]), (3, [])]
    assert promised.stamp_of(None) is None
