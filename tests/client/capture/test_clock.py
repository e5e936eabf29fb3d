"""The times of a live stream."""

from __future__ import annotations

import pytest

from masklet._media.capture.clock import StreamClock

SECOND = 10**9


def times(clock: StreamClock, *parts: tuple[float | None, float]) -> list[float | None]:
    """The times that parts get, each given by its own time and when it was read, in seconds."""
    return [clock.stamp(own, int(read * SECOND)).pts_seconds for own, read in parts]


def test_times_begin_at_zero_and_follow_the_sources_clock() -> None:
    assert times(StreamClock(paced=True), (7.0, 100), (7.04, 100.5), (7.08, 100.6)) == pytest.approx([0, 0.04, 0.08])


def test_reordered_frames_keep_their_times() -> None:
    assert times(StreamClock(paced=True), (0.0, 1), (0.12, 1.1), (0.04, 1.1), (0.08, 1.2)) == pytest.approx(
        [0.0, 0.12, 0.04, 0.08]
    )


def test_without_a_clock_the_wall_clock_of_a_camera_tells() -> None:
    assert times(StreamClock(paced=True), (None, 10), (None, 10.5), (None, 12)) == pytest.approx([0.0, 0.5, 2.0])
    assert times(StreamClock(paced=False), (None, 10), (None, 10.5)) == [None, None]


@pytest.mark.parametrize("jump", [-3600.0, 95443.7])
def test_a_clock_that_jumps_goes_on(jump: float) -> None:
    parts = (5.0, 10.0), (5.04, 10.04), (5.08 + jump, 10.1), (5.12 + jump, 10.14)
    assert times(StreamClock(paced=True), *parts) == pytest.approx([0, 0.04, 0.1, 0.14])
    assert times(StreamClock(paced=False), *parts) == pytest.approx([0, 0.04, 0.08, 0.12])


def test_after_a_break_times_go_on_by_the_wall_clock_and_the_gap_is_named_once() -> None:
    clock = StreamClock(paced=True)
    assert times(clock, (50.0, 10), (51.0, 11)) == [0.0, 1.0]
    clock.break_off()
    first = clock.stamp(0.0, 15 * SECOND)
    assert [first.pts_seconds, first.gap_seconds] == [5.0, 4.0]
    second = clock.stamp(0.04, 15 * SECOND + 1)
    assert [second.pts_seconds, second.gap_seconds] == pytest.approx([5.04, 0.0])


def test_the_first_part_of_a_connection_may_have_no_time() -> None:
    clock = StreamClock(paced=True)
    assert times(clock, (None, 10), (0.0, 10), (0.04, 10.04)) == pytest.approx([0, 0, 0.04], abs=1e-6)
    clock.break_off()
    assert times(clock, (None, 12), (0.0, 12), (0.04, 12.04)) == pytest.approx([2.0, 2.0, 2.04])


def test_each_part_was_read_at_another_time() -> None:
    clock = StreamClock(paced=True)
    assert [clock.stamp(0.0, 5).nanoseconds for _ in range(3)] == [5, 6, 7]
