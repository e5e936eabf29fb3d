"""What operators ask: how many devices, what a lost node costs, how fast to scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.simulation.curve import BatchCurve
from benchmarks.simulation.fleet import Demand, Fleet, Scenario, Supply

MOST_SKIPPED = 0.01
"""The share of frames that may be skipped where a promise of latency is kept."""
_SECONDS = 20.0
_MOST_TRIES = 100
_SURE = 2.33  # standard deviations: 99 of 100 times there is room for the streams that are there


@dataclass(frozen=True)
class Promise:
    """What streams are promised.

    Attributes:
        p99_seconds: The latency that 99 of 100 results do not exceed.
        skipped: The share of frames that may be skipped.
        start_seconds: How long 99 of 100 streams wait for their place at most.
    """

    p99_seconds: float
    skipped: float = MOST_SKIPPED
    start_seconds: float = 1.0

    def is_kept(self, found: dict[str, float]) -> bool:
        """Whether the figures of a simulation keep it."""
        return (
            found["p99_seconds"] <= self.p99_seconds
            and found["skipped_share"] <= self.skipped
            and found["start_wait_p99_seconds"] <= self.start_seconds
            and not found["refused"]
        )


def simulated(scenario: Scenario) -> dict[str, float]:
    """The figures of a scenario."""
    return Fleet(scenario).run().to_dict(scenario.seconds - scenario.warm_up)


def streams_of_a_device(curve: BatchCurve, frame_rate: float, promise: Promise, seed: int = 0) -> int:
    """The largest number of streams of which a device keeps the promise; 0 where it keeps it to none."""

    def is_kept(streams: int) -> bool:
        supply = Supply(1, room=max(streams, 1))
        return promise.is_kept(
            simulated(Scenario(curve, Demand(streams, frame_rate), supply, seconds=_SECONDS, seed=seed))
        )

    low, high = 0, 1
    while high <= 4096 and is_kept(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_kept(middle) else (low, middle)
    return low


def devices_for(curve: BatchCurve, demand: Demand, promise: Promise, seed: int = 0) -> dict[str, Any]:
    """The smallest number of devices that keeps the promise, found to about one percent.

    Args:
        curve: How long a round of a device takes.
        demand: The streams.
        promise: What they are promised.
        seed: Of everything random.

    Returns:
        `devices`, `streams_of_a_device`, and the figures; `devices` is 0 where no number keeps the promise.
    """
    each = streams_of_a_device(curve, demand.frame_rate, promise, seed)
    if not each:
        return {"devices": 0, "streams_of_a_device": 0}
    comes_and_goes = math.isfinite(demand.stream_seconds)
    at_once = demand.streams + (_SURE * math.sqrt(demand.streams) if comes_and_goes else 0.0)
    devices = math.ceil(at_once / each)
    for _ in range(_MOST_TRIES):
        found = simulated(Scenario(curve, demand, Supply(devices, room=each), seconds=_SECONDS, seed=seed))
        if promise.is_kept(found):
            return {"streams_of_a_device": each, **found, "devices": devices}
        devices += max(1, devices // 100)
    return {"devices": 0, "streams_of_a_device": each}


def lost_node(scenario: Scenario, devices: int, at: float | None = None) -> dict[str, Any]:
    """What it costs when a node dies: the figures with and without.

    Args:
        scenario: What is simulated; what it says of failures holds.
        devices: Those of the node.
        at: When it dies; None: at the end of the warm-up.
    """
    when = scenario.warm_up if at is None else at
    dying = replace(scenario, failures=replace(scenario.failures, at=when, devices=devices))
    never = replace(scenario, failures=replace(scenario.failures, at=math.inf))
    return {"without": simulated(never), "with": simulated(dying)}


def scaling(scenario: Scenario, surge: float, seconds_to_start: Sequence[float]) -> list[dict[str, float]]:
    """What becomes of streams when there are suddenly more, by how quickly devices start.

    Args:
        scenario: What is simulated; its supply says above how many streams on a device more are started.
        surge: So many times as many streams come after the warm-up.
        seconds_to_start: Seconds until a new device serves, for each simulation.
    """
    found = []
    for seconds in seconds_to_start:
        supply = replace(scenario.supply, boot_seconds=seconds, load_seconds=0.0)
        demand = replace(scenario.demand, surge=surge, surge_at=scenario.warm_up)
        figures = simulated(replace(scenario, supply=supply, demand=demand))
        found.append({"seconds_to_start": seconds, **figures})
    return found
