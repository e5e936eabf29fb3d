"""Connections that only cost are ended, as their clients see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet.v1 import image_pb2
from masklet_server.rpc.receiving.sockets import connections_to, end
from tests.support.rpc import Edge, edge, finish, open_stream, segment


def port_of(running: Edge) -> int:
    return int(running.server.address.rpartition(":")[2])


@contextlib.asynccontextmanager
async def raw(running: Edge) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):  # the server may have reset it, or read no more
            await asyncio.wait_for(writer.wait_closed(), 1)
        writer.transport.abort()
        await asyncio.sleep(0)  # in which the socket is closed


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


async def send_headers(writer: asyncio.StreamWriter, count: int) -> None:
    """The headers of a call, which go on and on."""
    writer.write(PREFACE)
    for i in range(count):
        name = f"x{i:07}".encode()
        text = b"y" * 10_000
        field = b"\0" + bytes([len(name)]) + name + b"\x7f" + _rest_of_length(len(text)) + text
        writer.write(frame(9 if i else 1, 0, 1, field))
        await asyncio.wait_for(writer.drain(), 5)


def _rest_of_length(length: int) -> bytes:
    """HPACK's number after a prefix of seven bits."""
    length -= 127
    found = b""
    while length >= 128:
        found += bytes([length % 128 + 128])
        length //= 128
    return found + bytes([length])


async def test_sockets_are_found_with_what_they_received() -> None:
    async with edge() as running, raw(running) as (_, writer):
        writer.write(PREFACE)
        await writer.drain()
        await asyncio.sleep(0.2)
        (found,) = connections_to([port_of(running)])
        assert found.peer == writer.get_extra_info("sockname")
        assert found.received == len(PREFACE)
        assert connections_to([1]) == []


async def test_an_ended_connection_is_closed_for_its_client() -> None:
    async with edge() as running, raw(running) as (reader, _), raw(running) as (other, writer):
        await asyncio.sleep(0.1)
        port = port_of(running)
        (mine,) = (one for one in connections_to([port]) if one.peer == writer.get_extra_info("sockname"))
        end([mine], [port])
        await asyncio.wait_for(other.read(), 5)  # to the end
        await asyncio.sleep(0.2)
        assert [one.inode for one in connections_to([port])] != [mine.inode]
        assert len(connections_to([port])) == 1
        assert not reader.at_eof()


async def test_headers_without_an_end_end_the_connection() -> None:
    async with edge() as running, raw(running) as (_, writer):
        with pytest.raises((ConnectionError, asyncio.TimeoutError)):
            await send_headers(writer, 1_000_000)  # 10 GB
        assert running.sample("refusals_total", limit="connection_bytes") == 1


async def test_connections_beyond_the_bound_are_ended_and_calls_go_on() -> None:
    async with edge(max_connections_per_address=3) as running, running.stub() as stub:
        call = await open_stream(stub)
        async with contextlib.AsyncExitStack() as stack:
            readers = [(await stack.enter_async_context(raw(running)))[0] for _ in range(6)]
            async with grpc.aio.insecure_channel(running.server.address) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
                await asyncio.sleep(0.6)
                assert len(connections_to([port_of(running)])) == 3
                ended = [reader for reader in readers if await is_ended(reader)]
                assert len(ended) == 5
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        await finish(call)
        assert running.sample("refusals_total", limit="max_connections_per_address") == 5


async def is_ended(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(), 0.1)
    except asyncio.TimeoutError:
        return False
    return True


async def test_large_messages_and_many_calls_are_no_reason_to_end() -> None:
    async with edge() as running, running.stub() as stub:
        for _ in range(4):
            await asyncio.gather(*(segment(stub, size=10**7) for _ in range(8)))
        call = await open_stream(stub)
        await asyncio.sleep(0.5)
        await finish(call)
        assert running.sample("refusals_total", limit="connection_bytes") == 0


async def test_a_response_that_is_not_read_holds_no_turn_for_ever() -> None:
    async with edge(receive_seconds=0.5, max_requests=1) as running, running.stub() as stub:
        running.service.on_segment = lambda: image_pb2.SegmentImageResponse(image_id="x" * 10**6)
        async with raw(running) as (reader, writer):
            window = frame(4, 0, 0, (4).to_bytes(2, "big") + bytes(4))  # nothing may be sent on a stream
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window)
            message = image_pb2.SegmentImageRequest(image_id="a").SerializeToString()
            data = b"\0" + len(message).to_bytes(4, "big") + message
            writer.write(frame(1, 4, 1, segment_headers()) + frame(0, 1, 1, data))
            await asyncio.sleep(0.2)
            answered = asyncio.ensure_future(segment(stub))
            await asyncio.sleep(0.1)
            assert not answered.done()
            assert len((await asyncio.wait_for(answered, 5)).image_id) == 10**6
            assert not reader.at_eof()
        method = "masklet.v1.TrackingService/SegmentImage"
        assert running.sample("rpcs_total", method=method, code="DEADLINE_EXCEEDED") == 1
        assert running.sample("rpcs_total", method=method, code="OK") == 1


async def test_a_client_that_leaves_while_a_response_is_sent_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    """The write of gRPC fails; that may come before the call is cancelled, and in place of it."""
    async with edge() as running, running.stub() as stub:

        def fail() -> image_pb2.SegmentImageResponse:
            raise grpc.aio.InternalError("the batch has failed")

        running.service.on_segment = fail
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(segment(stub), 5)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        method = "masklet.v1.TrackingService/SegmentImage"
        assert running.sample("rpcs_total", method=method, code="CANCELLED") == 1
        assert not [one for one in caplog.records if one.levelname == "ERROR"]


def segment_headers() -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/masklet.v1.TrackingService/SegmentImage",
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    pairs = (text.encode() for pair in fields.items() for text in pair)
    return b"".join((b"" if i % 2 else b"\0") + bytes([len(text)]) + text for i, text in enumerate(pairs))
