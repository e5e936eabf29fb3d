"""Workers are killed (SIGKILL) while streams run behind a gateway: how soon each goes on, and whether all is right."""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path

import masklet
from benchmarks.gateway.processes import Worker, workers_context
from benchmarks.gateway.streams import Work, make_clip, track
from benchmarks.gateway.timeline import Failover, Timeline, WatchedPlacement
from masklet_cluster.placement.static import StaticPlacement
from masklet_cluster.placement.worker import Connection
from tests.faults.history import History, violations
from tests.support.gateway import GatewayThread

WORKERS = 2
_MESSAGE_BYTES = 32 * 1024**2
_LOOK_SECONDS = 0.05
_MOST_SECONDS_FOR_ALL_TO_SERVE = 120.0


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        kills: How many workers are killed.
        streams: How many streams run at once.
        frames: Of each stream's clip.
        image_size: nano's; a small one makes the benchmark one of failover, and not of nano.
        seed: Of the times of kills.
    """

    kills: int = 10
    streams: int = 8
    frames: int = 60
    image_size: int = 128
    seed: int = 1


@dataclass
class Outcome:
    """What became of the streams.

    Attributes:
        kills: Workers that were killed while they had a stream.
        streams: Streams that ran to their end.
        results: Results that clients have seen.
        seconds: How long it took.
        failovers: Streams that broke and went on.
        wrong: What was wrong with any stream.
    """

    kills: int = 0
    streams: int = 0
    results: int = 0
    seconds: float = 0.0
    failovers: list[Failover] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def measure_failover(plan: Plan) -> Outcome:
    """Kill workers until there were enough; each is started again at once, as Ray or systemd would do."""
    found, timeline, over = Outcome(), Timeline(), threading.Event()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="masklet-failover-")))
        work = Work(make_clip(folder, plan.frames), plan.frames, f"nano@{plan.image_size}")
        workers = _workers(workers_context(), folder, work, stack)
        should = History()
        track(workers[0].address, work, should)
        found.wrong += violations(should)
        names = [f"stream-{number}" for number in range(plan.streams)]
        tokens = folder / "tokens"
        tokens.write_text("".join(f"{name} token-of-{name}\n" for name in names))
        static = StaticPlacement([one.address for one in workers], Connection(_MESSAGE_BYTES))
        placement = WatchedPlacement(static, timeline)
        gateway = stack.enter_context(GatewayThread((), placement=placement, token_file=tokens, grace_seconds=0.0))
        runs = [_Run(name, gateway.address, work, timeline, should) for name in names]
        threads = [threading.Thread(target=run.until, args=(over,)) for run in runs]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            found.kills = _kill(plan, workers, static, timeline)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        found.seconds = time.monotonic() - began
    for run in runs:
        found.streams += run.streams
        found.results += run.results
        found.wrong += run.wrong
    found.failovers = timeline.failovers()
    return found


def _workers(context: ForkServerContext, folder: Path, work: Work, stack: contextlib.ExitStack) -> list[Worker]:
    arguments = ("--trust-gateway", "--state-dir", str(folder / "state"), "--snapshot-frames", "8", "--model")
    return [stack.enter_context(Worker(context, *arguments, work.model)) for _ in range(WORKERS)]


def _kill(plan: Plan, workers: list[Worker], placement: StaticPlacement, timeline: Timeline) -> int:
    """Kill a worker that has streams whenever all serve, and all streams have gone on; returns how often."""
    chance, by_address = random.Random(plan.seed), {one.address: one for one in workers}
    for _ in range(plan.kills):
        deadline = time.monotonic() + _MOST_SECONDS_FOR_ALL_TO_SERVE
        time.sleep(chance.uniform(0.5, 2.0))
        while True:
            reports = placement.workers()
            busy = [one.name for one in reports if one.streams]
            # A client gives up a video over which servers die again and again without a new result.
            if busy and all(one.state == "serving" for one in reports) and timeline.all_go_on():
                break
            if time.monotonic() > deadline:
                states = [one.state for one in reports]
                raise RuntimeError(f"not all workers serve ({states}), or not all streams go on")
            time.sleep(_LOOK_SECONDS)
        worker = by_address[chance.choice(busy)]
        timeline.kills.append(time.monotonic())
        worker.kill()
        worker.start()
        worker.wait()
    return plan.kills


class _Run:
    """One client, which runs streams one after the other."""

    def __init__(self, name: str, address: str, work: Work, timeline: Timeline, should: History) -> None:
        self.streams = self.results = 0
        self.wrong: list[str] = []
        self._name = name
        self._address = address
        self._work = work
        self._timeline = timeline
        self._should = should

    def until(self, over: threading.Event) -> None:
        """Run streams until that is set; the last one to its end."""
        while not over.is_set():
            history = _Watched(self._name, self._timeline)
            track(self._address, self._work, history, self._resumed, f"token-of-{self._name}")
            self.streams += 1
            self.results += len(history.results)
            self.wrong += [f"{self._name}: {one}" for one in violations(history, self._should)]

    def _resumed(self, event: masklet.ResumeEvent) -> None:
        if event.kind == "lost":
            self._timeline.add(self._name, "lost")


class _Watched(History):
    """A history that notes when each mask has come."""

    def __init__(self, name: str, timeline: Timeline) -> None:
        super().__init__()
        self._name = name
        self._timeline = timeline

    def add(self, result: masklet.FrameResult | masklet.PromptResult) -> None:
        super().add(result)
        if isinstance(result, masklet.FrameResult):
            self._timeline.add(self._name, "result", result.frame_index)
