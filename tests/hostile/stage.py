"""A real server in a thread, and a client that sends what no client should."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc

from masklet_server.metrics import Metrics
from masklet_server.rpc.server import Server
from masklet_server.rpc.tracking_service import TrackingService
from masklet_server.settings import checked
from tests.hostile.messages import Attack
from tests.support.aio import write_all
from tests.support.fake_sources import FakeSources
from tests.support.fakes import FakeEngine
from tests.support.processes import decoders

T = TypeVar("T")

TRACK = "/masklet.v1.TrackingService/Track"
SEGMENT_IMAGE = "/masklet.v1.TrackingService/SegmentImage"
# What a server must never answer, whatever comes.
BUGS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
_PATIENCE = 60.0


class Stage:
    """A server with an engine that computes nothing; with real decoders, or with sources that decode nothing.

    Attributes:
        metrics: The server's.
        codes: How often each status was answered.
    """

    def __init__(self, *, real_video: bool, **settings: Any) -> None:
        self.metrics = Metrics()
        self.codes: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._settings = checked({"address": "127.0.0.1:0", "grace_seconds": 0.1, **settings})
        self._real_video = real_video
        self.run(self._start())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the server's event loop, and wait for the result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE)

    async def _start(self) -> None:
        sources = None if self._real_video else FakeSources()
        self._service = TrackingService(FakeEngine(), self._settings, self.metrics, sources=sources)
        self._server = Server(self._service, self._settings, self.metrics)
        await self._server.start()
        self._channel = grpc.aio.insecure_channel(self._server.address)

    def close(self) -> None:
        """Stop the server and its thread."""
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        await self._channel.close()
        await self._server.stop()
        self._service.close()

    def stream(self, attack: Attack) -> grpc.StatusCode:
        """Send a stream's messages; returns how it ended."""
        code = self.run(self._stream(attack))
        self.codes[code.name] += 1
        return code

    async def _stream(self, attack: Attack) -> grpc.StatusCode:
        call: Any = self._channel.stream_stream(TRACK)()
        reading = asyncio.ensure_future(_read(call))
        await write_all(call, attack.messages)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            if attack.cancels:
                call.cancel()
            else:
                await call.done_writing()
        await asyncio.wait({reading}, timeout=_PATIENCE / 2)
        assert reading.done(), f"the stream has not ended: {attack}"
        return await _code_of(call)

    def request(self, message: bytes) -> grpc.StatusCode:
        """Send one SegmentImage request; returns how it ended."""
        code = self.run(self._request(message))
        self.codes[code.name] += 1
        return code

    async def _request(self, message: bytes) -> grpc.StatusCode:
        ask: Any = self._channel.unary_unary(SEGMENT_IMAGE)
        call = ask(message)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call
        return await _code_of(call)

    def value(self, name: str, **labels: str) -> float:
        """The value of one of the server's metrics."""
        return self.metrics.registry.get_sample_value(f"masklet_{name}", labels) or 0.0

    def answers(self, code: str) -> float:
        """How many calls the server has ended with a status."""
        return sum(self.value("rpcs_total", method=method[1:], code=code) for method in (TRACK, SEGMENT_IMAGE))

    def tasks(self) -> int:
        """How many tasks the server's event loop has."""
        return self.run(_count_tasks())


async def _code_of(call: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = await call.code()
    assert code not in BUGS, f"{code}: {await call.details()}"
    return code


async def _count_tasks() -> int:
    return len(asyncio.all_tasks())


async def _read(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        async for _ in call:
            pass


def temporary_files() -> int:
    """How many temporary files without a name this process has open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += "(deleted)" in str(link.readlink()) and "memfd" not in str(link.readlink())
    return count


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def nothing_is_left(stage: Stage) -> Iterator[None]:
    """After the block there are no more files, processes, descriptors and tasks than before it."""
    measures: dict[str, Callable[[], float]] = {
        "answers of INTERNAL": lambda: stage.answers("INTERNAL"),
        "answers of UNKNOWN": lambda: stage.answers("UNKNOWN"),
        "sessions": lambda: stage.value("sessions"),
        "disk": lambda: stage.value("budget_used", budget="max_disk_bytes"),
        "decoders' memory": lambda: stage.value("budget_used", budget="max_decoder_memory_bytes"),
        "temporary files": temporary_files,
        "decoders": lambda: len(decoders()),
        "tasks": stage.tasks,
        "descriptors": descriptors,
    }
    # The processes and connections that a server keeps are there before anything is counted.
    before = {name: measure() for name, measure in measures.items()}
    # Picture processes are kept: two pipes, a status pipe and a handle each.
    spare = {"decoders": 4, "descriptors": 24, "tasks": 2}
    yield
    assert sum(map(stage.answers, stage.codes)), "calls are counted"
    deadline = time.monotonic() + 20
    left = before
    while time.monotonic() < deadline:
        gc.collect()
        left = {name: measure() for name, measure in measures.items()}
        if all(left[name] <= before[name] + spare.get(name, 0) for name in before):
            return
        time.sleep(0.1)
    raise AssertionError(f"before {before}, after {left}")
