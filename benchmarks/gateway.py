"""What a gateway costs, and how soon streams go on after a worker has died: `python -m benchmarks.gateway`.

- *hop*: messages of 4 KB go to a server that sends each back, by way of a gateway and without one, by turns in one run.
  The server, the gateway and the client are processes of their own. The difference of the round trips is what the
  gateway adds there and back; its own processor time is counted for each message that it passes on.
- *failover*: streams with nano on two workers behind a gateway, which share a folder for snapshots. When both serve,
  one that has streams is killed (SIGKILL) after some seconds. What each client saw is held against a run without
  faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import platform
import queue
import random
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from multiprocessing.connection import Connection as Pipe
from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

import masklet
from masklet.v1 import server_info_pb2, tracking_pb2
from tests.faults.history import History, violations
from tests.faults.server import ServerProcess
from tests.faults.streams import run
from tests.support.gateway import GatewayThread

TRACK = "/masklet.v1.TrackingService/Track"
INFO = "/masklet.v1.TrackingService/GetServerInfo"
SIZE = 4096
WARM_UP = 200


@dataclass
class Hop:
    """Round trips of one message.

    Attributes:
        direct: Seconds of each, without a gateway.
        through: The same by way of the gateway.
        cpu: Processor seconds of the gateway's process while `through` was measured.
    """

    direct: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)
    cpu: float = 0.0


class _Echo(grpc.GenericRpcHandler):
    """Answers Track with its own messages, and GetServerInfo with nothing to speak of."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of one of the two methods."""
        if handler_call_details.method == TRACK:
            return grpc.stream_stream_rpc_method_handler(self._track)
        if handler_call_details.method == INFO:
            return grpc.unary_unary_rpc_method_handler(self._info)
        return None

    async def _track(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            await context.write(request)

    async def _info(self, request: bytes, context: Any) -> bytes:
        return server_info_pb2.GetServerInfoResponse(server_version="echo").SerializeToString()


async def _echo(pipe: Pipe) -> None:
    server, healthy = grpc.aio.server(), health.aio.HealthServicer()
    server.add_generic_rpc_handlers((_Echo(),))
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(f"127.0.0.1:{port}")
    await asyncio.to_thread(pipe.recv)
    await server.stop(0)


def _echo_process(pipe: Pipe) -> None:
    asyncio.run(_echo(pipe))


def _gateway_process(pipe: Pipe, server: str) -> None:
    with GatewayThread([server]) as gateway:
        pipe.send(gateway.address)
        while pipe.recv():
            used = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(used.ru_utime + used.ru_stime)


class _Child:
    """A process that says its address first."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        self.address: str = self.pipe.recv()

    def asked(self) -> float:
        """What it answers."""
        self.pipe.send(True)
        answer: float = self.pipe.recv()
        return answer

    def close(self) -> None:
        """Let it end."""
        self.pipe.send(False)
        self._process.join(30)


class _PingPong:
    """A stream on which each message is awaited before the next one is sent."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method: Any = self._channel.stream_stream(TRACK)
        self._answers: Iterator[bytes] = method(iter(self._messages.get, None))
        self._data = tracking_pb2.TrackRequest(video_chunk=os.urandom(SIZE)).SerializeToString()

    def rounds(self, count: int) -> list[float]:
        """Seconds of so many round trips."""
        found = []
        for _ in range(count):
            began = time.perf_counter()
            self._messages.put(self._data)
            next(self._answers)
            found.append(time.perf_counter() - began)
        return found

    def close(self) -> None:
        """End the stream."""
        self._messages.put(None)
        self._channel.close()


def measure_hop(messages: int, turns: int = 10) -> Hop:
    """Measure round trips by turns, so that both sides have the same share of whatever else the machine does.

    Args:
        messages: Of each side.
        turns: In how many parts.
    """
    echo = _Child(_echo_process)
    gateway = _Child(_gateway_process, echo.address)
    direct, through = _PingPong(echo.address), _PingPong(gateway.address)
    hop = Hop()
    try:
        for side in (direct, through):
            side.rounds(WARM_UP)
        for _ in range(turns):
            hop.direct += direct.rounds(messages // turns)
            before = gateway.asked()
            hop.through += through.rounds(messages // turns)
            hop.cpu += gateway.asked() - before
    finally:
        for one in (direct, through, gateway, echo):
            one.close()
    return hop


@dataclass
class Failover:
    """What streams saw while workers were killed.

    Attributes:
        kills: Workers that were killed while they had a stream.
        streams: Streams that ran to their end.
        gaps: For each break: seconds from its notice to the next new result.
        wrong: What was wrong with any of them.
    """

    kills: int = 0
    streams: int = 0
    gaps: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def measure_failover(kills: int, streams: int, seed: int = 1) -> Failover:
    """Kill workers until there were enough, with so many streams running all the time.

    Args:
        kills: How many.
        streams: How many streams run at once.
        seed: Of the times of kills.
    """
    chance, found, over = random.Random(seed), Failover(), threading.Event()
    with tempfile.TemporaryDirectory(prefix="masklet-failover-") as state, contextlib.ExitStack() as stack:
        arguments = ("--trust-gateway", "--state-dir", state, "--snapshot-frames", "4")
        one, two = (stack.enter_context(ServerProcess(*arguments)) for _ in range(2))
        should, _ = run("file", one.address)
        servers = {one.address: one, two.address: two}
        with GatewayThread(list(servers), 3.0) as gateway:
            threads = [threading.Thread(target=_streams, args=(gateway, should, found, over)) for _ in range(streams)]
            for thread in threads:
                thread.start()
            while found.kills < kills:
                time.sleep(chance.uniform(2.0, 6.0))
                reports = gateway.placement.workers()
                busy = [report.name for report in reports if report.streams]
                if busy and all(report.state == "serving" for report in reports):
                    server = servers[chance.choice(busy)]
                    server.kill()
                    found.kills += 1
                    server.start()
            over.set()
            for thread in threads:
                thread.join()
    return found


def _streams(gateway: GatewayThread, should: History, found: Failover, over: threading.Event) -> None:
    while not over.is_set():
        times: list[float] = []

        class Timed(History):
            def add(self, result: masklet.FrameResult | masklet.PromptResult, at: list[float] = times) -> None:
                super().add(result)
                at.append(time.monotonic())

        history, events = run("file", gateway.address, history=Timed())
        found.streams += 1
        found.wrong += violations(history, should)
        breaks = sum(event.kind == "lost" for event in events)
        found.gaps += sorted((b - a for a, b in itertools.pairwise(times)), reverse=True)[:breaks]


def main(
    messages: Annotated[int, typer.Option(help="Of the hop, on each side.")] = 4000,
    kills: Annotated[int, typer.Option(help="Workers to kill; 0: leave this part out.")] = 10,
    streams: Annotated[int, typer.Option(help="At once, while workers are killed.")] = 4,
) -> None:
    """Measure a gateway on this machine."""
    console, table = Console(), Table(title=f"gateway, {platform.processor() or platform.machine()}, {date.today()}")
    for heading in ("figure", "value"):
        table.add_column(heading)
    if messages:
        hop = measure_hop(messages)
        direct, through = statistics.median(hop.direct), statistics.median(hop.through)
        table.add_row("round trip of 4 KB without, p50", f"{1e3 * direct:.3f} ms")
        table.add_row("round trip of 4 KB with, p50", f"{1e3 * through:.3f} ms")
        table.add_row("what the gateway adds for one message, p50", f"{1e3 * (through - direct) / 2:.3f} ms")
        table.add_row("its processor time for one message", f"{1e3 * hop.cpu / 2 / len(hop.through):.3f} ms")
    if kills:
        failover = measure_failover(kills, streams)
        gaps = sorted(failover.gaps)
        table.add_row("workers killed, streams", f"{failover.kills}, {failover.streams}")
        if gaps:
            table.add_row(
                "break to the next new result, p50 and most", f"{statistics.median(gaps):.2f}, {gaps[-1]:.2f} s"
            )
        table.add_row("results lost, doubled or altered", str(len(failover.wrong)))
        for wrong in failover.wrong[:10]:
            console.print(wrong)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
