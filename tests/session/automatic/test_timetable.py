"""The times of frames, and the frame that is nearest to the time of a prompt."""

from __future__ import annotations

import pytest

from masklet.errors import InvalidArgument
from masklet_server.session.automatic.timetable import Timetable


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
