"""The gateway's benchmarks in miniature, with real servers and a real gateway."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks.gateway import endurance, failover, ratio
from benchmarks.gateway.timeline import STEPS, Mark, Timeline

pytestmark = pytest.mark.slow


def test_the_steps_of_a_failover_are_those_of_the_try_that_succeeded() -> None:
    timeline = Timeline()
    timeline.kills += [1.0, 20.0]
    timeline.marks["a"] = [
        Mark(0.5, "result", 7),
        Mark(1.25, "broken"),
        Mark(1.5, "lost"),
        Mark(2.0, "asked"), Mark(2.0, "leased"), Mark(2.25, "broken"),
        Mark(3.0, "asked"), Mark(3.25, "leased"), Mark(3.5, "connected"), Mark(4.0, "resumed", 4),
        Mark(4.25, "video"), Mark(4.5, "video"), Mark(6.0, "mask", 8), Mark(6.125, "video"), Mark(6.25, "result", 8),
        Mark(20.5, "broken"), Mark(21.0, "lost"),  # and it did not come back
    ]  # fmt: skip
    (found,) = timeline.failovers()
    assert list(found.steps.values()) == [0.25, 0.25, 1.5, 0.25, 0.25, 0.5, 0.5, 1.5, 0.25]
    assert (found.seconds, found.tries, found.repeated) == (5.25, 2, 3)
    assert list(found.steps) == list(STEPS)


def test_workers_are_killed_and_no_result_is_lost() -> None:
    outcome = failover.measure_failover(failover.Plan(kills=2, streams=3, frames=40))
    assert outcome.kills == 2
    assert outcome.wrong == []
    assert outcome.results >= 42 * outcome.streams > 0, "two prompts and forty frames each"
    assert outcome.failovers, "no stream was disturbed"
    for one in outcome.failovers:
        assert 0 < one.seconds < outcome.seconds
        assert one.repeated < 40


def test_what_processes_hold_is_looked_at_three_times() -> None:
    found = endurance.measure_endurance(endurance.Plan(streams=4, seconds=8.0, frames=20))
    assert found.wrong == []
    assert found.streams >= 4
    assert {name: len(held) for name, held in found.held.items()} == {"gateway": 3, "worker 1": 3, "worker 2": 3}
    assert min(min(held) for held in found.held.values()) > 10 * 2**20


def test_growing_processes_are_named() -> None:
    mib = 2**20
    found = endurance.Endurance({"flat": [500 * mib, 900 * mib, 540 * mib], "small": [20 * mib, 20 * mib, 30 * mib]})
    assert found.growing == []
    found.held["leaky"] = [500 * mib, 540 * mib, 580 * mib]
    assert found.growing == ["leaky"]


def test_held_bytes_are_those_of_a_process() -> None:
    before = endurance.held_bytes(os.getpid())
    data = bytearray(b"x" * 50_000_000)
    assert endurance.held_bytes(os.getpid()) - before > 40_000_000
    del data


def test_both_sides_are_counted() -> None:
    begun = time.monotonic()
    found = ratio.measure_ratio(ratio.Plan(turns=1, seconds=2.0, streams=1, frames=20, image_size=128))
    assert found.failed == []
    assert len(found.separate) == len(found.together) == 1
    assert min(found.separate + found.together) > 0
    assert found.value == found.together[0] / found.separate[0]
    assert time.monotonic() - begun > 8
