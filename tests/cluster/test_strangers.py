"""What a gateway does with a worker that is no masklet server, or that cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from masklet_cluster.placement.worker import Connection, Worker


@contextlib.asynccontextmanager
async def stranger(info: bytes | None) -> AsyncIterator[str]:
    """A server that is healthy, and that answers GetServerInfo with these bytes; None: it has no such method."""
    server = grpc.aio.server()
    answers = health.aio.HealthServicer()
    await answers.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(answers, server)

    async def get_server_info(request: bytes, context: Any) -> bytes:
        assert info is not None
        return info

    if info is not None:
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(get_server_info)
        handlers = grpc.method_handlers_generic_handler("masklet.v1.TrackingService", {"GetServerInfo": handler})
        server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def watched(address: str) -> AsyncIterator[Worker]:
    worker = Worker("it", address, Connection(1 << 20))
    worker.start()
    try:
        await worker.first_probe()
        yield worker
    finally:
        await worker.close()


@pytest.mark.parametrize("info", [None, b"\xff\xff\xff"])
async def test_what_is_no_masklet_server_gets_nothing(info: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with stranger(info) as address, watched(address) as worker:
        for _ in range(6):  # it is asked again and again, and what is wrong is said once
            assert worker.state == "lost"
            await asyncio.sleep(0.5)
    told = [record.message for record in caplog.records if record.name.startswith("masklet_cluster")]
    assert told == [f"worker it at {address} is lost: it is no masklet server; give the address of one"]


async def test_a_server_that_says_what_it_is_serves() -> None:
    async with stranger(b"") as address, watched(address) as worker:
        assert worker.state == "serving"


async def test_a_worker_that_was_never_reached_is_told_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    async with watched("127.0.0.1:1") as worker:
        await asyncio.sleep(1.2)
        assert worker.state == "lost"
    told = [record.message for record in caplog.records if record.name.startswith("masklet_cluster")]
    assert len(told) == 1
    assert told[0].startswith("worker it at 127.0.0.1:1 is lost: ")
    assert "refused" in told[0].lower()
