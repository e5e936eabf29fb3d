"""Attacks on a real server, with a client beside them that wants an honest answer: ``python -m tests.hostile.attacks``.

Each attack is rebuilt from the description of one that once took a server down. For each, a line says how it ended for
the attacker, how much memory the server and its decoders took at most, and how long the frames of an honest client's
stream took, at the 99th percentile, without the attack and beside it, by turns; and whether its masks were the same.
Names of attacks as arguments choose some of them. Where a memory control group may be made, the server gets one of 4
GiB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from masklet.v1 import common_pb2, image_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.masks.encoding import MaskEncoding, encode
from masklet_server.masks.runs import Runs
from tests.hostile.target import (
    GIB,
    GROUP,
    Comparison,
    HonestClient,
    Outcome,
    Target,
    as_client,
    asking,
    connect,
    ended,
    jpeg,
)
from tests.support.clips import make_clip

LARGEST = (4320, 8192)
# Forty, as at first, take minutes: all are answered.
REQUESTS = int(os.environ.get("MASKLET_HOSTILE_REQUESTS", "40"))
Request = tracking_pb2.TrackRequest

# The attacks


async def masks_of_large_pictures(target: Target) -> Outcome:
    """Requests of 1.4 kB: 30 run-length masks each, for a picture of 35 megapixels that the server has."""
    height, width = LARGEST
    encoded = encode(Runs.of(np.ones((height, width), np.bool_)), MaskEncoding.COCO_RLE)
    mask = common_pb2.Mask(encoding=common_pb2.MASK_ENCODING_COCO_RLE, height=height, width=width, data=encoded.data)
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        file = io.BytesIO()
        Image.new("RGB", (width, height)).save(file, "PNG")
        first = await stub.SegmentImage(asking(file.getvalue()), metadata=as_client("m"))
        prompts = [image_pb2.SegmentPrompt(mask=mask)] * 30
        request = image_pb2.SegmentImageRequest(image_id=first.image_id, prompts=prompts)
        calls = [stub.SegmentImage(request, metadata=as_client("m")) for _ in range(REQUESTS)]
        return Counter([await ended(call, 300) for call in calls])


async def messages_without_an_end(target: Target) -> Outcome:
    """60 connections without a token; each sends all of a message of 32 MB but the last kilobyte."""

    async def one(number: int) -> str:
        reader, writer = await asyncio.open_connection(*target.address.rsplit(":", 1))
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
            writer.write(_frame(1, 4, 1, _headers()))
            writer.write(_frame(0, 0, 1, b"\0" + (32 * 10**6).to_bytes(4, "big")))
            for _ in range(2000):
                writer.write(_frame(0, 0, 1, bytes(16_000)))
                await asyncio.wait_for(writer.drain(), 3)
        answer = await asyncio.wait_for(reader.read(65536), 5)
        writer.close()
        return "UNAUTHENTICATED" if b"bearer" in answer.lower() or b"16" in answer else "answered"

    return Counter(await asyncio.gather(*map(one, range(60))))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _headers() -> bytes:
    """Headers of HTTP/2 without compression."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/masklet.v1.TrackingService/SegmentImage",
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


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


async def tracks(target: Target, video: bytes, count: int, *, on_request: bool = False) -> Outcome:
    """So many streams with a video, all at once."""
    config = tracking_pb2.TrackConfig()
    if on_request:
        config.propagation = tracking_pb2.PROPAGATION_ON_REQUEST

    async def one(stub: Any) -> str:
        call = stub.Track(metadata=as_client("m"))

        async def send() -> None:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(Request(config=config))
                for start in range(0, len(video), 2**18):
                    await call.write(Request(video_chunk=video[start : start + 2**18]))
                await call.write(Request(end_of_video=tracking_pb2.EndOfVideo()))
                if not on_request:
                    await call.done_writing()

        sending = asyncio.create_task(send())
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.TimeoutError):
            await asyncio.wait_for(_read_all(call), 45)
        sending.cancel()
        return await ended(call, 0.5)

    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        return Counter(await asyncio.gather(*(one(stub) for _ in range(count))))


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def large_references(target: Target) -> Outcome:
    """16 streams of H.264 with 16 references, 4:4:4, 4096 x 2160."""
    flat = [np.random.default_rng(0).integers(0, 255, (2160, 4096, 3), np.uint8)] * 24
    options = {"preset": "ultrafast", "x264-params": "ref=16:bframes=0:keyint=250"}
    video = make_clip(
        "matroska", "libx264", size=(4096, 2160), pixel_format="yuv444p", pictures=flat, codec_options=options
    )
    return await tracks(target, video, 16)


async def small_file_many_frames(target: Target) -> Outcome:
    """16 files of some kilobytes, on request: each writes a gigabyte of frames to the server's disk."""
    one = np.zeros((16, 16, 3), np.uint8)
    video = make_clip("mp4", "libx264", size=(16, 16), pictures=[one] * 3000, codec_options={"preset": "ultrafast"})
    return await tracks(target, video, 16, on_request=True)


async def scan_bombs(target: Target) -> Outcome:
    """Eight JPEGs of 35 megapixels with 3,000 scans, and eight with as many as are allowed."""
    file = io.BytesIO()
    Image.new("L", (5800, 5800), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        bombs = [data[:last] + data[last:-2] * scans + data[-2:] for scans in (3000, 90)]
        calls = [stub.SegmentImage(asking(bomb), metadata=as_client("m")) for bomb in bombs for _ in range(8)]
        return Counter([await ended(call, 300) for call in calls])


async def slow_upload(target: Target) -> Outcome:
    """A file by one byte a second (the server's time without progress is 5 s here)."""
    video = make_clip(frames=3)
    async with connect(target) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(metadata=as_client("m"))
        await call.write(Request(config=tracking_pb2.TrackConfig()))
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for position in range(30):
                await call.write(Request(video_chunk=video[position : position + 1]))
                await asyncio.sleep(1)
        await ended(call, 1)
        (last,) = re.findall(r"rpc method=\S+Track client=mallory code=(\w+)", target.log.read_text())[-1:]
        return Counter([last])  # gRPC's client says INTERNAL when a call ends while it writes


async def frozen_decoders(target: Target) -> Outcome:
    """All decoding processes and the fork server are stopped, as a fault of the machine might do."""
    import signal

    for pid in target.family()[1:]:
        os.kill(pid, signal.SIGSTOP)
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        call = stub.SegmentImage(asking(jpeg()), metadata=as_client("m"))
        return Counter([await ended(call, 90)])


ATTACKS: dict[str, Callable[[Target], Awaitable[Outcome]]] = {
    one.__name__: one
    for one in (
        masks_of_large_pictures,
        messages_without_an_end,
        resets,
        idle_connections,
        large_references,
        small_file_many_frames,
        scan_bombs,
        slow_upload,
        frozen_decoders,
    )
}


async def run(name: str, rounds: int) -> None:
    """Attack a new server several times, with quiet times between, and print a line about it."""
    extra = ["--idle-timeout-seconds", "5"] if name == "slow_upload" else []
    outcome: Outcome = Counter()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder), *extra)
        bob, comparison = HonestClient(target), Comparison()
        os.nice(5)  # the attacker's own work does not take the server's time
        watching = asyncio.create_task(target.watch())
        try:
            await bob.track()
            for _ in range(1 if name == "frozen_decoders" else rounds):
                comparison.add(await bob.track(), beside=False)
                attack = asyncio.ensure_future(ATTACKS[name](target))
                await asyncio.sleep(0.5)
                while not attack.done():
                    comparison.add(await bob.track(), beside=True)
                outcome += await attack
            comparison.add(await bob.track(), beside=False)
            alive = "" if target.lives() else "; THE SERVER HAS DIED"
            bugs = len(re.findall("internal error", target.log.read_text()))
            print(
                f"{name}: {dict(outcome)}; peak {target.peak_bytes / GIB:.2f} GiB; {comparison}; internal errors "
                f"{bugs}{alive}",
                flush=True,
            )
        finally:
            watching.cancel()
            bob.close()
            target.close()


def main() -> None:
    """Run the attacks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ATTACKS, []], default=[])
    parser.add_argument("--rounds", type=int, default=3, help="how often each attack runs, with quiet times between")
    options = parser.parse_args()
    with contextlib.suppress(OSError):
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(4 * GIB))
    names = options.names or list(ATTACKS)
    if len(names) == 1:
        asyncio.run(run(names[0], options.rounds))
        return
    for name in names:  # each in a process of its own, which may lower its priority
        command = [sys.executable, "-m", "tests.hostile.attacks", name, "--rounds", str(options.rounds)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
