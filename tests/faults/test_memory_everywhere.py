"""An engine that runs out of memory at any of its operations: walks over all that a session makes the engine do.

The n-th operation on a tensor that the engine makes for one stream fails, for n over a whole session, until a run
passes in which nothing failed. A session makes thousands, so n grows in steps, which are odd.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import masklet
from masklet_server.embedded import EmbeddedServer
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History as ObjectHistory
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.jobs import Track, TrackingJob
from masklet_server.masks.edges import Edges
from tests.faults.history import History, violations
from tests.faults.streams import run
from tests.support.processes import decoders, settle

pytestmark = pytest.mark.slow
STREAMS = ("live", "corrected", "annotation")
# The stream whose operations are counted; the one beside it has guided edges.
VICTIM: masklet.Edges = "none"


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations on tensors inside a block, and lets one of them fail.

    Attributes:
        count: How many there were.
        fails_at: The one that fails, counted from 0; None: none does.
        frames: How many frames the engine has tracked for the stream, as far as that did not fail.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.begin(None)

    def begin(self, fails_at: int | None) -> None:
        """Count from 0 again."""
        self.fails_at = fails_at
        self.count = self.frames = 0
        self.has_failed = False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.count == self.fails_at:
            self.count += 1
            self.has_failed = True
            raise torch.OutOfMemoryError("no memory left")
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def operations() -> Iterator[Operations]:
    """Of streams whose edges are not guided."""
    counted = Operations()

    def counting(network: Any, jobs: Sequence[TrackingJob], *more: Any) -> Any:
        if jobs[0].stream.edges is not Edges.NONE:
            return run_jobs(network, jobs, *more)
        assert len(jobs) == 1, "a deterministic stream shares no batch"
        with counted:
            outputs = run_jobs(network, jobs, *more)
        counted.frames += isinstance(jobs[0], Track)
        return outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("masklet_server.engine.serving.scheduler.run_jobs", counting)
        yield counted


@pytest.fixture(scope="module")
def server(operations: Operations, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    state = tmp_path_factory.mktemp("state")
    with EmbeddedServer(
        "nano@64", device="cpu", dtype="float32", state_dir=str(state), snapshot_frames=4, max_sessions_per_client=16
    ) as address:
        yield address


@pytest.fixture(scope="module")
def beside(server: str) -> History:
    """What the stream beside it gives while there is memory."""
    return run("file", server)[0]


def left() -> Counter[str]:
    """What sessions must not leave behind: memories of objects, and tasks, by what they run."""
    gc.collect()
    found = gc.get_objects()  # among them are some that warn when they are asked for their class
    memories = [type(one).__name__ for one in found if type(one) in (MemoryBank, ObjectHistory)]
    tasks = [one for one in found if issubclass(type(one), asyncio.Task) and not one.done()]
    names = (getattr(one.get_coro(), "__qualname__", "") for one in tasks)
    return Counter(
        [*memories, *(name for name in names if name != "Server.became_idle")]
    )  # which waits for the next pause


def nothing_is_left(before: Counter[str], idle: int) -> None:
    """Wait until there is no more than before, and no more than so many decoding processes."""
    deadline = time.monotonic() + 30
    while more := left() - before:
        assert time.monotonic() < deadline, more
        time.sleep(0.05)
    settle(idle)


def side_by_side(name: str, server: str) -> tuple[History, History]:
    """Run the stream whose operations are counted, and a file beside it."""
    histories = History(), History()
    streams: list[Callable[[], object]] = [
        lambda: run(name, server, history=histories[0], edges=VICTIM),
        lambda: run("file", server, history=histories[1]),
    ]
    threads = [threading.Thread(target=one) for one in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return histories


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("runs", [3, pytest.param(200, marks=pytest.mark.soak)])
def test_wherever_memory_is_missing_the_stream_ends_by_name(
    name: str, runs: int, server: str, operations: Operations, beside: History
) -> None:
    operations.begin(None)
    idle = len(decoders())  # servers of other tests may live in this process, too
    should, _ = run(name, server, edges=VICTIM)
    assert violations(should) == []
    settle(idle)
    before, total = left(), operations.count
    assert total > 1_000
    step, fails_at = total // runs | 1, 0
    while True:
        operations.begin(fails_at)
        history, other = side_by_side(name, server)
        if not operations.has_failed:
            break
        where = f"operation {fails_at}"
        assert history.end.startswith("ResourceExhausted: "), where
        assert "ran out of memory" in history.end, where
        assert violations(history, should, may_fail=True) == [], where
        delivered = sum(one.revision >= 0 for one in history.results)
        # A correction's own result needs no tracking.
        assert delivered >= operations.frames, f"{where}: what was made is delivered"
        assert violations(other, beside) == [], where
        nothing_is_left(before, idle)
        fails_at += step
    assert fails_at >= runs * step // 2, "most of them were hit"
    assert violations(history, should) == []


def test_a_snapshot_without_memory_ends_no_stream(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    should, _ = run("live", server)

    def dump(self: MemoryBank) -> bytes:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(MemoryBank, "dump", dump)
    history, events = run("live", server)
    assert violations(history, should) == []
    assert events == []
    assert caplog.text.count("no snapshot could be stored: the device ran out of memory") == 1
