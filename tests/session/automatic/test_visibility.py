"""When objects count as lost and found."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet_server.session.automatic.visibility import FRAMES_TO_DECIDE, Sighting, Visibility
from masklet_server.session.replies import ObjectEvent

HEIGHT, WIDTH = 480, 640
INSIDE, AT_RIGHT = (100, 100, 200, 200), (560, 100, 640, 200)
LOST, REACQUIRED, OUT_OF_VIEW = ObjectEvent.LOST, ObjectEvent.REACQUIRED, ObjectEvent.OUT_OF_VIEW


def seen(box: tuple[int, int, int, int] | None = INSIDE) -> Sighting:
    return Sighting(5.0, 0.9, box, HEIGHT, WIDTH)


HIDDEN = Sighting(-5.0, 0.0, None, HEIGHT, WIDTH)
UNSURE = Sighting(0.5, 0.9, INSIDE, HEIGHT, WIDTH)
AS_TOLD = {True: seen(), False: HIDDEN, None: UNSURE}


def told(*sightings: Sighting) -> dict[int, ObjectEvent]:
    """Events by frame."""
    visibility = Visibility()
    events = {i: visibility.update(sighting) for i, sighting in enumerate(sightings)}
    return {i: event for i, event in events.items() if event is not None}


@pytest.mark.parametrize(
    ("score", "iou", "box", "says"),
    [
        (5.0, 0.9, INSIDE, True),
        (1.0, 0.5, INSIDE, True),
        (0.9, 0.9, INSIDE, None),
        (5.0, 0.49, INSIDE, None),
        (5.0, 0.4, INSIDE, None),
        (5.0, 0.39, INSIDE, False),
        (0.0, 0.9, INSIDE, False),
        (-3.0, 0.9, INSIDE, False),
        (5.0, 0.9, None, False),
    ],
)
def test_a_frame_says_seen_or_not_or_nothing(
    score: float, iou: float, box: tuple[int, int, int, int] | None, says: bool | None
) -> None:
    assert Sighting(score, iou, box, HEIGHT, WIDTH).is_seen is says


@pytest.mark.parametrize(
    ("box", "touches"),
    [
        (INSIDE, False),
        (AT_RIGHT, True),
        ((0, 100, 60, 200), True),
        ((100, 0, 160, 40), True),
        ((100, 300, 160, 480), True),
        ((6, 100, 60, 200), True),  # 1 % of the width are 6.4 pixels
        ((7, 100, 60, 200), False),
        ((100, 300, 160, 476), True),
        ((100, 300, 160, 475), False),
        (None, False),
    ],
)
def test_a_mask_near_the_edge_touches_it(box: tuple[int, int, int, int] | None, touches: bool) -> None:
    assert seen(box).touches_edge is touches


def test_an_object_is_lost_and_found() -> None:
    frames = [seen()] * 4 + [HIDDEN] * 5 + [seen()] * 4
    assert told(*frames) == {6: LOST, 11: REACQUIRED}


def test_an_object_that_was_last_seen_at_the_edge_is_out_of_view() -> None:
    assert told(seen(), seen(AT_RIGHT), *[HIDDEN] * 3) == {4: OUT_OF_VIEW}
    # Where a mask that nobody believes in lies, says nothing.
    nonsense = Sighting(5.0, 0.1, AT_RIGHT, HEIGHT, WIDTH)
    assert told(seen(), *[nonsense] * 3) == {3: LOST}
    # It counts where it was last seen, not where it ever was.
    assert told(seen(AT_RIGHT), seen(), *[HIDDEN] * 3) == {4: LOST}


def test_an_object_that_never_appears_is_lost_once() -> None:
    assert told(*[HIDDEN] * 20) == {2: LOST}


@pytest.mark.parametrize("period", [1, 2])
def test_flicker_makes_no_events(period: int) -> None:
    flicker = ([HIDDEN] * period + [seen()] * period) * 20
    assert told(*flicker) == {}
    lost = [HIDDEN] * 3
    assert told(*lost, *flicker) == {2: LOST}


def test_frames_that_say_nothing_neither_count_nor_break_a_run() -> None:
    assert told(HIDDEN, UNSURE, HIDDEN, UNSURE, UNSURE, HIDDEN) == {5: LOST}
    assert told(*[UNSURE] * 30) == {}


@given(st.lists(st.sampled_from([True, False, None]), max_size=60))
def test_what_holds_is_what_the_last_run_said(says: list[bool | None]) -> None:
    visibility = Visibility()
    decisive: list[bool] = []
    held = True
    events = []
    for one in says:
        event = visibility.update(AS_TOLD[one])
        if one is not None:
            decisive.append(one)
        # From the whole history, where the code keeps a counter: the last run that was long enough decides.
        runs = [decisive[i : i + FRAMES_TO_DECIDE] for i in range(len(decisive) - FRAMES_TO_DECIDE + 1)]
        holds = next((run[0] for run in reversed(runs) if len(set(run)) == 1), True)
        assert visibility.is_visible is holds
        assert event is (None if holds == held else REACQUIRED if holds else LOST)
        held = holds
        events += [event] if event else []
    assert all(a is not b for a, b in pairwise(events)), "events come by turns"
