"""What a gateway adds to messages of 4 KB: they go to a server that sends each back, with a gateway and without one."""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from time import perf_counter
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from benchmarks.gateway.processes import Child, gateway_process
from masklet.v1 import server_info_pb2, tracking_pb2

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
            began = perf_counter()
            self._messages.put(self._data)
            next(self._answers)
            found.append(perf_counter() - began)
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
    echo = Child(_echo_process)
    gateway = Child(gateway_process, [echo.address])
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
