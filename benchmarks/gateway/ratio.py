"""Two workers behind a gateway against the same two servers without it: frames a second, by turns."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import masklet
from benchmarks.gateway.processes import Child, Worker, gateway_process, workers_context
from benchmarks.gateway.streams import Work, make_clip, track
from tests.faults.history import History

WORKERS = 2


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        turns: How often each side runs.
        seconds: How long a turn is measured.
        streams: Streams of each worker.
        frames: Of a clip.
        image_size: nano's; its own, so that a frame costs what it costs.
    """

    turns: int = 5
    seconds: float = 10.0
    streams: int = 2
    frames: int = 60
    image_size: int = 384


@dataclass
class Ratio:
    """Frames a second of each turn.

    Attributes:
        separate: Of the servers, half of the clients at each.
        together: Of the gateway before them.
        failed: What streams ended with that did not end well.
    """

    separate: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def value(self) -> float:
        """Median of the ratios of turns that followed one another."""
        return statistics.median(two / one for one, two in zip(self.separate, self.together, strict=True))


def measure_ratio(plan: Plan) -> Ratio:
    """Measure both sides by turns."""
    found = Ratio()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="masklet-ratio-")))
        work = Work(make_clip(folder, plan.frames), plan.frames, f"nano@{plan.image_size}", deterministic=False)
        context = workers_context()
        servers = [
            stack.enter_context(Worker(context, "--trust-gateway", "--model", work.model)) for _ in range(WORKERS)
        ]
        gateway = Child(gateway_process, [one.address for one in servers])
        stack.callback(gateway.close)
        separate = [server.address for server in servers for _ in range(plan.streams)]
        for turn in range(-1, plan.turns):
            for rates, addresses in ((found.separate, separate), (found.together, [gateway.address] * len(separate))):
                rate = _frames_a_second(addresses, work, plan.seconds, found)
                if turn >= 0:  # the first turn warms up
                    rates.append(rate)
    return found


class _Counted(History):
    """A history that only counts frames, while that is wanted."""

    def __init__(self, counts: list[float]) -> None:
        super().__init__()
        self._counts = counts

    def add(self, result: masklet.FrameResult | masklet.PromptResult) -> None:
        if isinstance(result, masklet.FrameResult):
            self._counts.append(time.monotonic())


def _frames_a_second(addresses: Sequence[str], work: Work, seconds: float, found: Ratio) -> float:
    """Run a stream after the other at each of the addresses, and count frames once all have begun."""
    over, counts = threading.Event(), [list[float]() for _ in addresses]

    def client(address: str, mine: list[float]) -> None:
        while not over.is_set():
            history = _Counted(mine)
            track(address, work, history)
            if history.end != "done":
                found.failed.append(history.end)
                return

    clients = [
        threading.Thread(target=client, args=(address, mine)) for address, mine in zip(addresses, counts, strict=True)
    ]
    for one in clients:
        one.start()
    while not all(counts) and any(one.is_alive() for one in clients):
        time.sleep(0.01)
    begun = time.monotonic()
    time.sleep(seconds)
    ended = time.monotonic()
    over.set()
    for one in clients:
        one.join()
    return sum(begun <= at <= ended for mine in counts for at in mine) / (ended - begun)
