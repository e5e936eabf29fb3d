"""Many streams through a gateway for a long time: does the memory of the gateway and of the workers stay the same?

Half of the streams last as long as the measurement; clients of the other half track clip after clip.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

import masklet
from benchmarks.gateway.processes import Child, Worker, gateway_process, workers_context
from benchmarks.gateway.streams import HEIGHT, WIDTH, Work, make_clip, prompts, track
from tests.faults.history import History, violations
from tests.support import synthetic

WORKERS = 2
MOMENTS = ("start", "middle", "end")
# So much of the time goes by before the first look: by then every client has been through a whole clip.
_WARM_UP = 0.2
# Pages that libraries touch late, and the heap's own slack.
_SLACK_BYTES = 16 * 1024**2
_PICTURES = 60


@dataclass(frozen=True)
class Plan:
    """What is done.

    Attributes:
        streams: How many run at once.
        seconds: For how long.
        frames: Of a clip.
        image_size: nano's.
    """

    streams: int = 64
    seconds: float = 600.0
    frames: int = 60
    image_size: int = 128


@dataclass
class Endurance:
    """What was seen.

    Attributes:
        held: By process, bytes at each of `MOMENTS`.
        streams: Streams that ran to their end.
        results: Results that clients have seen.
        wrong: What was wrong with any stream.
    """

    held: dict[str, list[int]] = field(default_factory=dict)
    streams: int = 0
    results: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def growing(self) -> list[str]:
        """The processes that held more at the end than at the start, by a tenth and more than slack."""
        return [name for name, (start, _, end) in self.held.items() if end - start > max(start // 10, _SLACK_BYTES)]


def measure_endurance(plan: Plan) -> Endurance:
    """Run the streams, and look three times at what the processes hold."""
    found, over = Endurance(), threading.Event()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="masklet-endurance-")))
        work = Work(make_clip(folder, plan.frames), plan.frames, f"nano@{plan.image_size}")
        most = str(plan.streams)
        arguments = ("--trust-gateway", "--max-sessions", most, "--max-sessions-per-client", most, "--model")
        context = workers_context()
        workers = [stack.enter_context(Worker(context, *arguments, work.model)) for _ in range(WORKERS)]
        gateway = Child(gateway_process, [one.address for one in workers])
        stack.callback(gateway.close)
        processes = {"gateway": gateway.pid} | {f"worker {number}": one.pid for number, one in enumerate(workers, 1)}
        clients = [
            threading.Thread(target=_film if number % 2 else _track, args=(gateway.address, work, found, over))
            for number in range(plan.streams)
        ]
        for client in clients:
            client.start()
        try:
            begun = time.monotonic()
            for moment in (_WARM_UP, (1 + _WARM_UP) / 2, 1.0):
                time.sleep(max(0.0, begun + moment * plan.seconds - time.monotonic()))
                for name, pid in processes.items():
                    found.held.setdefault(name, []).append(held_bytes(pid))
        finally:
            over.set()
            for client in clients:
                client.join()
    return found


def held_bytes(pid: int) -> int:
    """Anonymous memory of a process: pages of files come and go as the machine pleases."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def _track(address: str, work: Work, found: Endurance, over: threading.Event) -> None:
    while not over.is_set():
        history = History()
        track(address, work, history)
        _count(found, history)


def _film(address: str, work: Work, found: Endurance, over: threading.Event) -> None:
    """One stream, until that is set."""
    history = History(given=1)
    try:
        with (
            masklet.Client(address, connect_timeout=0) as client,
            client.live(prompts()[:1], delivery="lossless", model=work.model, on_prompt=history.add) as live,
        ):
            sender = threading.Thread(target=_send, args=(live, over), daemon=True)
            sender.start()
            for frame in live:
                history.add(frame)
            sender.join(30)
        history.end = "done"
    except masklet.MaskletError as error:
        history.end = f"{type(error).__name__}: {error}"
    _count(found, history)


def _send(live: masklet.Live, over: threading.Event) -> None:
    with contextlib.suppress(masklet.MaskletError):  # the loop over the results says why
        for picture in _pictures():
            if over.is_set():
                break
            live.send(picture)
        live.end()


def _pictures() -> Iterator[npt.NDArray[np.uint8]]:
    """A clip that is shown forward and backward, so that objects never jump."""
    pictures = synthetic.clip(_PICTURES, HEIGHT, WIDTH)
    while True:
        yield from pictures
        yield from pictures[::-1]


def _count(found: Endurance, history: History) -> None:
    found.streams += 1
    found.results += len(history.results)
    found.wrong += violations(history)
