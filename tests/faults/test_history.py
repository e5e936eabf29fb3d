"""The checker of histories itself: it must find each kind of damage, or it does not count."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history import History, Seen, renumbered, violations

SEEDS = range(25)


def undisturbed() -> History:
    """Twenty frames with two objects: one prompted first, one on frame 5, and frame 8 corrected after frame 12."""
    results = [Seen(0, 0, -1, ((1, "p"),))]
    for index in range(20):
        if index == 5:
            results.append(Seen(0, 5, -1, ((2, "q"),)))
        objects = ((1, f"a{index}"), *(((2, f"b{index}"),) if index >= 5 else ()))
        results.append(Seen(0, index, 0, objects))
        if index == 12:
            results.append(Seen(0, 8, -1, ((1, "r"),)))
            results += [Seen(0, again, 1, ((1, f"c{again}"),)) for again in range(8, 13)]
    return History(renumbered(results), given=3, end="done", frame_count=20)


def _frames(history: History) -> list[int]:
    return [place for place, seen in enumerate(history.results) if seen.revision >= 0]


def doubled(history: History, chance: random.Random) -> None:
    place = chance.randrange(len(history.results))
    history.results.insert(place, history.results[place])


def doubled_and_renumbered(history: History, chance: random.Random) -> None:
    place = chance.choice(_frames(history))
    history.results.insert(place, history.results[place])
    history.results = renumbered(history.results)


def left_out(history: History, chance: random.Random) -> None:
    del history.results[chance.randrange(len(history.results))]


def left_out_and_renumbered(history: History, chance: random.Random) -> None:
    first = [place for place, seen in enumerate(history.results) if seen.revision == 0]
    del history.results[chance.choice(first)]
    history.results = renumbered(history.results)


def swapped(history: History, chance: random.Random) -> None:
    place = chance.randrange(len(history.results) - 1)
    history.results[place : place + 2] = history.results[place : place + 2][::-1]


def swapped_and_renumbered(history: History, chance: random.Random) -> None:
    first = [place for place, seen in enumerate(history.results) if seen.revision == 0]
    place = chance.choice([one for one in first if one + 1 in first])
    history.results[place : place + 2] = history.results[place : place + 2][::-1]
    history.results = renumbered(history.results)


def applied_twice(history: History, chance: random.Random) -> None:
    answers = [place for place, seen in enumerate(history.results) if seen.revision == -1]
    place = chance.choice(answers)
    history.results.insert(place + 1, history.results[place])
    history.results = renumbered(history.results)


def not_applied(history: History, chance: random.Random) -> None:
    answers = [place for place, seen in enumerate(history.results) if seen.revision == -1]
    del history.results[chance.choice(answers)]
    history.results = renumbered(history.results)


def corrected_twice(history: History, chance: random.Random) -> None:
    again = [seen for seen in history.results if seen.revision == 1]
    place = history.results.index(again[-1]) + 1
    history.results[place:place] = [replace(seen, revision=2) for seen in again[chance.randrange(len(again)) :]]
    history.results = renumbered(history.results)


def revision_left_out(history: History, chance: random.Random) -> None:
    again = [place for place, seen in enumerate(history.results) if seen.revision == 1]
    place = chance.choice(again)
    history.results[place] = replace(history.results[place], revision=2)


def cut_short(history: History, chance: random.Random) -> None:
    del history.results[-chance.randrange(1, 7) :]


def after_the_end(history: History, chance: random.Random) -> None:
    history.after_end = chance.randrange(1, 3)


def ended_with_an_error(history: History, chance: random.Random) -> None:
    history.end = chance.choice(["Unavailable: gone", "Internal: a bug", ""])


def another_mask(history: History, chance: random.Random) -> None:
    place = chance.randrange(len(history.results))
    seen = history.results[place]
    history.results[place] = replace(seen, objects=((seen.objects[0][0], "changed"), *seen.objects[1:]))


def an_object_less(history: History, chance: random.Random) -> None:
    place = chance.randrange(len(history.results))
    history.results[place] = replace(history.results[place], objects=history.results[place].objects[1:])


Mutation = Callable[[History, random.Random], None]
ALONE: list[Mutation] = [
    doubled, doubled_and_renumbered, left_out, left_out_and_renumbered, swapped, swapped_and_renumbered, applied_twice,
    not_applied, revision_left_out, cut_short, after_the_end, ended_with_an_error,
]  # fmt: skip
WITH_REFERENCE: list[Mutation] = [*ALONE, another_mask, an_object_less, corrected_twice]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mutation", ALONE)
def test_damage_shows_by_itself(mutation: Mutation, seed: int) -> None:
    history = undisturbed()
    mutation(history, random.Random(seed))
    assert violations(history) != []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mutation", WITH_REFERENCE)
def test_damage_shows_beside_an_undisturbed_run(mutation: Mutation, seed: int) -> None:
    history = copy.deepcopy(undisturbed())
    mutation(history, random.Random(seed))
    assert violations(history, undisturbed()) != []


def test_an_undisturbed_run_is_right() -> None:
    assert violations(undisturbed()) == []
    assert violations(undisturbed(), undisturbed()) == []


def test_skipped_frames_are_no_gap_if_they_are_named() -> None:
    history = History([Seen(1, 0, 0, ()), Seen(2, 3, 0, (), (1, 2))], end="done", frame_count=4)
    assert violations(history) == []
    history.results[1] = replace(history.results[1], skipped=(1,))
    assert violations(history) == ["frames [2] are missing before frame 3", "3 of 4 frames came"]


def test_a_stream_that_may_fail_must_be_right_before() -> None:
    history = undisturbed()
    del history.results[15:]
    history.end = "Unavailable: gone"
    assert violations(history, undisturbed(), may_fail=True) == []
    history.results[3], history.results[4] = history.results[4], history.results[3]
    assert violations(history, undisturbed(), may_fail=True) != []
