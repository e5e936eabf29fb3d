"""Runs a load: clients come when they are due, whatever became of those before."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.load.arrivals import Arrivals
from benchmarks.load.visits import KINDS, Kind, Visit, Work, clip, jpeg
from tests.faults.history import History, violations


@dataclass(frozen=True)
class Load:
    """What comes to a server.

    Attributes:
        arrivals: When clients come.
        mix: How often each kind of client comes, in proportion.
        work: What each does.
        seconds: For how long clients come.
        seed: Of everything that is random.
    """

    arrivals: Arrivals
    mix: Mapping[Kind, float]
    work: Work
    seconds: float
    seed: int = 0

    def visits(self) -> list[Visit]:
        """The clients in order of their coming; the same for the same seed."""
        chance = random.Random(self.seed)
        kinds = [kind for kind in KINDS if self.mix.get(kind, 0) > 0]
        weights = [self.mix[kind] for kind in kinds]
        return [
            Visit(number, chance.choices(kinds, weights)[0], due)
            for number, due in enumerate(self.arrivals.times(self.seconds, chance))
        ]


def run(address: str, load: Load) -> list[Visit]:
    """Let the clients come, and wait until all have left.

    Args:
        address: The server, or a gateway.
        load: Who comes.
    """
    visits = load.visits()
    clip(load.work.clip_frames)  # made beforehand, so that nobody waits for it
    for index in range(load.work.live_frames):
        jpeg(index)
    threads = []
    begun = time.monotonic()
    for visit in visits:
        time.sleep(max(0.0, begun + visit.due - time.monotonic()))
        visit.late = time.monotonic() - begun - visit.due
        thread = threading.Thread(target=visit.run, args=(address, load.work, load.seed + visit.number), daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    return visits


def references(address: str, work: Work) -> dict[Kind, History]:
    """What each kind of client sees of a server that it has to itself."""
    found: dict[Kind, History] = {}
    for kind in KINDS:
        visit = Visit(0, kind, 0.0)
        visit.run(address, work, seed=0)
        if wrong := violations(visit.history):
            raise RuntimeError(f"{kind}, alone: {'; '.join(wrong)}")
        found[kind] = visit.history
    return found


def wrong(visits: Sequence[Visit], reference: Mapping[Kind, History]) -> dict[str, list[str]]:
    """What is wrong with what clients saw, by client. A client that the server refused has seen nothing wrong.

    Args:
        visits: The clients.
        reference: What each kind must see to the bit; empty: only order and wholeness are looked at.
    """
    found = {}
    for visit in visits:
        problems = violations(visit.history, reference.get(visit.kind), may_fail=bool(visit.error))
        if problems:
            found[f"{visit.kind} {visit.number}"] = problems
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed (nearest rank); 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def fairness(rates: Sequence[float]) -> float:
    """Jain's index: 1 where all get the same, 1/n where one of n gets everything.

    Source: Jain, Chiu and Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
    """
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 1.0


def summary(visits: Sequence[Visit]) -> dict[str, Any]:
    """The figures of a run, ready for JSON."""
    end = max((visit.due + visit.late + visit.seconds for visit in visits), default=0.0)
    frames = sum(visit.frames for visit in visits)
    found: dict[str, Any] = {
        "clients": len(visits),
        "seconds": end,
        "frames": frames,
        "frames_per_second": frames / end if end else 0.0,
        "errors": dict(Counter(visit.error for visit in visits if visit.error)),
        "latest_start_seconds": max((visit.late for visit in visits), default=0.0),
        "kinds": {},
    }
    for kind in KINDS:
        mine = [visit for visit in visits if visit.kind == kind]
        if mine:
            latencies = [seconds for visit in mine for seconds in visit.latencies]
            rates = [len(visit.latencies) / visit.seconds for visit in mine if visit.seconds and not visit.error]
            found["kinds"][kind] = {
                "clients": len(mine),
                "results": len(latencies),
                "skipped": sum(visit.skipped for visit in mine),
                "p50_seconds": quantile(latencies, 0.5),
                "p99_seconds": quantile(latencies, 0.99),
                "mean_seconds": statistics.fmean(latencies) if latencies else 0.0,
                "fairness": fairness(rates),
            }
    return found


def described(load: Load) -> dict[str, Any]:
    """The load itself, ready for JSON."""
    return {
        "process": load.arrivals.process.value,
        "rate": load.arrivals.rate,
        "mix": dict(load.mix),
        "seconds": load.seconds,
        "seed": load.seed,
        "work": asdict(load.work),
    }
