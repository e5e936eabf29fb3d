"""Connections of honest clients are never ended, however fast, slow or many they are, and whatever holds the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet.v1 import image_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.rpc.receiving.sockets import connections_to
from tests.support.rpc import Authority, Edge, config_request, edge, end_request, open_stream, segment
from tests.support.streams import free_port

MIB = 1024**2
SIZE = 4 * MIB  # of a frame of a 4K clip, or of a part of a file
MANY = {"max_sessions": 200, "max_sessions_per_client": 200}
REFUSALS = ("connection_bytes", "connection_idle", "connection_unread", "max_connections_per_address")

# A server of its own process, which the tests may stop.
PROGRAM = """
import asyncio
from tests.support.rpc import edge

async def main():
    async with edge(max_sessions=200, max_sessions_per_client=200) as running:
        print(running.server.address, flush=True)
        await asyncio.to_thread(input)
        print(sum(running.sample("refusals_total", limit=limit) for limit in %r), flush=True)

asyncio.run(main())
"""


def push(channel: grpc.Channel, streams: int, messages: int) -> list[int]:
    """Streams that send large messages as fast as they can; returns how many messages of each the server has seen."""
    stub = tracking_pb2_grpc.TrackingServiceStub(channel)
    chunk = tracking_pb2.TrackRequest(video_chunk=bytes(SIZE))

    def requests() -> Iterator[tracking_pb2.TrackRequest]:
        yield config_request()
        for _ in range(messages):
            yield chunk
        yield end_request()

    def one(_: int) -> int:
        responses: list[tracking_pb2.TrackResponse] = list(stub.Track(requests()))
        return responses[-1].done.frame_count

    with ThreadPoolExecutor(streams) as pool:
        return list(pool.map(one, range(streams)))


def nobody_was_ended(running: Edge) -> bool:
    return not any(running.sample("refusals_total", limit=limit) for limit in REFUSALS)


@contextlib.asynccontextmanager
async def own_process() -> AsyncIterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(  # noqa: ASYNC220 - it does not wait
        [sys.executable, "-c", PROGRAM % (REFUSALS,)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        try:
            yield process, (await asyncio.to_thread(process.stdout.readline)).strip()
        finally:
            process.kill()


async def test_many_streams_at_full_speed_on_one_connection() -> None:
    async with edge() as running:
        with grpc.insecure_channel(running.server.address) as channel:
            assert await asyncio.to_thread(push, channel, 16, 12) == [14] * 16  # 800 MB
        assert nobody_was_ended(running)


async def test_an_event_loop_that_hangs_while_clients_push() -> None:
    async with edge(**MANY) as running:

        def hang() -> image_pb2.SegmentImageResponse:
            time.sleep(3)
            return image_pb2.SegmentImageResponse()

        running.service.on_segment = hang
        channels = [
            grpc.insecure_channel(running.server.address, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(3)
        ]
        with contextlib.ExitStack() as stack:
            for channel in channels:
                stack.enter_context(channel)
            # One connection has calls before the loop hangs, the others come meanwhile.
            before = asyncio.create_task(asyncio.to_thread(push, channels[0], 8, 12))
            await asyncio.sleep(0.3)
            loop = asyncio.get_running_loop()
            pool = ThreadPoolExecutor(2)
            during = [loop.run_in_executor(pool, push, channel, 16, 4) for channel in channels[1:]]
            async with running.stub() as stub:
                await segment(stub)
            assert await before == [14] * 8
            assert await asyncio.gather(*during) == [[6] * 16] * 2
            pool.shutdown()
        assert nobody_was_ended(running)


async def test_a_server_that_is_stopped_for_five_seconds() -> None:
    async with own_process() as (process, address):
        options = [("grpc.use_local_subchannel_pool", 1)]
        with (
            grpc.insecure_channel(address, options=options) as first,
            grpc.insecure_channel(address, options=options) as second,
        ):
            before = asyncio.create_task(asyncio.to_thread(push, first, 8, 12))
            await asyncio.sleep(0.3)
            process.send_signal(signal.SIGSTOP)
            during = asyncio.create_task(asyncio.to_thread(push, second, 16, 4))
            await asyncio.sleep(5)
            process.send_signal(signal.SIGCONT)
            assert await before == [14] * 8
            assert await during == [6] * 16
        ended, _ = await asyncio.to_thread(process.communicate, "\n")
        assert ended.strip() == "0.0"


async def test_a_message_that_takes_long() -> None:
    """A message of 24 MB from a network of 10 MB/s, the first of its connection."""
    async with edge() as running, running.stub() as stub:
        call = stub.Track()
        await call.write(config_request())
        for _ in range(24):
            await call.write(tracking_pb2.TrackRequest(video_chunk=bytes(MIB)))
            await asyncio.sleep(0.1)
        await call.write(end_request())
        assert len([response async for response in call]) == 26
        assert nobody_was_ended(running)


async def test_calls_that_are_refused_one_after_the_other(tmp_path: Path) -> None:
    """What a client had sent of a message before it was refused is on its way still."""
    tokens = tmp_path / "tokens"
    tokens.write_text("robot s3cret\n")
    async with edge(token_file=tokens) as running, running.stub() as stub:
        for _ in range(4):
            for metadata in ((), (("authorization", "Bearer s3cret"),)):
                calls = (segment(stub, size=20 * MIB, metadata=metadata) for _ in range(4))
                answers = await asyncio.gather(*calls, return_exceptions=True)
                assert all(metadata or is_unauthenticated(one) for one in answers)
                assert not metadata or not any(isinstance(one, Exception) for one in answers)
        await asyncio.sleep(1.5)
        assert nobody_was_ended(running)


def is_unauthenticated(answer: Any) -> bool:
    return isinstance(answer, grpc.aio.AioRpcError) and answer.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("kind", ["tls", "ipv6", "unix"])
async def test_whatever_kind_of_address(kind: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {}
    credentials = None
    if kind == "tls":
        authority = Authority(tmp_path)
        certificate, key = authority.issue("server")
        settings = {"tls_certificate": certificate, "tls_key": key}
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    elif kind == "ipv6":
        settings = {"address": "[::1]:0"}
    else:
        settings = {"address": f"unix:{tmp_path}/socket"}
    async with edge(**settings) as running:
        address = running.server.address
        made = grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials)
        with made as channel:
            assert await asyncio.to_thread(push, channel, 8, 8) == [10] * 8
        assert nobody_was_ended(running)


async def test_all_the_connections_of_one_address() -> None:
    async with edge(**MANY) as running, contextlib.AsyncExitStack() as stack:
        calls = []
        for number in range(128):
            options = [("grpc.use_local_subchannel_pool", 1), ("masklet.number", number)]
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(running.server.address, options=options)
            )
            calls.append(await open_stream(tracking_pb2_grpc.TrackingServiceStub(channel)))
        await asyncio.sleep(1)
        for call in calls:
            await call.write(end_request())
            assert (await call.read()).WhichOneof("response") == "done"
        assert nobody_was_ended(running)


async def test_the_health_address_knows_its_calls() -> None:
    """Whoever asks there keeps a connection for days."""
    address = f"127.0.0.1:{free_port()}"
    async with edge(health_address=address) as running:
        async with grpc.aio.insecure_channel(address) as channel:
            ask = health_pb2_grpc.HealthStub(channel).Check
            assert (await ask(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        method = "grpc.health.v1.Health/Check"
        assert running.sample("rpcs_total", method=method, code="OK") == 1


async def test_without_descriptors_nobody_is_forgotten() -> None:
    """A look that could not see the connections is none."""
    async with edge() as running, running.stub() as stub:
        await segment(stub)
        port = int(running.server.address.rpartition(":")[2])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.dup(0)
        with contextlib.ExitStack() as files:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
                with contextlib.suppress(OSError):
                    while True:
                        files.callback(os.close, os.dup(0))
                with pytest.raises(OSError, match="Too many open files"):
                    connections_to([port])
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(spare)
        assert len(connections_to([port])) == 1
