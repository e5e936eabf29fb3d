"""Attacks on a real server, with a client beside them that wants an honest answer: ``python -m tests.hostile.attacks``.

Each attack is rebuilt from the description of one that once took a server down. For each, a line says how it ended for
the attacker, how much memory the server and its decoders took at most, and how long the honest client's pictures took,
at the 99th percentile, alone and beside the attack. Names of attacks as arguments choose some of them. Where a memory
control group may be made, the server gets one of 4 GiB.
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
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from masklet.v1 import common_pb2, image_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.masks.encoding import MaskEncoding, encode
from masklet_server.masks.runs import Runs
from tests.support.clips import make_clip

GIB = 1024**3
GROUP = Path("/sys/fs/cgroup/memory/masklet-attacks")
LARGEST = (4320, 8192)
# Forty, as at first, take minutes: all are answered.
REQUESTS = int(os.environ.get("MASKLET_HOSTILE_REQUESTS", "40"))
_ENTER_GROUP = f'if [ -w {GROUP}/cgroup.procs ]; then echo $$ > {GROUP}/cgroup.procs; fi; exec "$@"'
Request = tracking_pb2.TrackRequest
Outcome = Counter[str]


class Target:
    """A running ``masklet serve`` with two clients: mallory, who attacks, and bob, who wants an answer.

    Attributes:
        address: Where it listens.
        pid: The server's process id.
        peak_bytes: Most memory of server and decoders together so far.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        tokens = folder / "tokens"
        tokens.write_text("mallory m\nbob b\n")
        command = [sys.executable, "-c", "from masklet.cli import main; main()", "serve", "--device", "cpu"]
        command += ["--address", "127.0.0.1:0", "--token-file", str(tokens), *settings]
        self._process = subprocess.Popen(
            ["sh", "-c", _ENTER_GROUP, "sh", *command],
            stdout=subprocess.PIPE,
            stderr=(folder / "log").open("w"),
            text=True,
        )
        assert self._process.stdout is not None
        banner = re.search(r"listening on (\S+)", self._process.stdout.readline())
        assert banner is not None, (folder / "log").read_text()
        self.address = banner[1]
        self.pid = self._process.pid
        self.tokens = tokens
        self.log = folder / "log"
        self.peak_bytes = 0

    def lives(self) -> bool:
        return self._process.poll() is None

    def family(self) -> list[int]:
        """Process ids of the server, its fork server and its decoders."""
        found, parents = {self.pid}, dict[int, int]()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        for _ in range(3):
            found |= {pid for pid, parent in parents.items() if parent in found}
        return sorted(found)

    def memory(self) -> int:
        """Bytes that the family has, each page once."""
        total = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                line = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                total += int(line[1]) * 1024 if line else 0
        return total

    async def watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, await asyncio.to_thread(self.memory))
            await asyncio.sleep(0.1)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _jpeg(side: int = 128, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(file, "JPEG", **options)
    return file.getvalue()


CLICK = [common_pb2.Point(x=40, y=40, label=common_pb2.POINT_LABEL_FOREGROUND)]


def asking(picture: bytes) -> image_pb2.SegmentImageRequest:
    return image_pb2.SegmentImageRequest(
        picture=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=picture),
        prompts=[image_pb2.SegmentPrompt(points=CLICK)],
    )


def as_client(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@contextlib.asynccontextmanager
async def connect(target: Target, number: int = 0) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1), ("masklet.number", number)]
    async with grpc.aio.insecure_channel(target.address, options=options) as channel:
        yield channel


async def ended(call: Any, seconds: float = 90) -> str:
    """How a call ends, by its status and the setting that it names."""
    try:
        code = await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(call.code())), seconds)
    except asyncio.TimeoutError:
        call.cancel()
        return "still running"
    details = await call.details()
    names = re.findall(r"\b(?:max|min|picture|decoder|idle|receive|first)_\w+|token\b|scans\b", details or "")
    return f"{code.name} ({names[-1]})" if names else str(code.name)


async def measure(target: Target, seconds: float) -> list[float]:
    """Seconds that each of bob's pictures takes."""
    taken = []
    async with connect(target) as channel:
        stub = tracking_pb2_grpc.TrackingServiceStub(channel)
        until = time.monotonic() + seconds
        picture = 0
        while time.monotonic() < until:
            picture += 1
            began = time.monotonic()
            try:
                await stub.SegmentImage(asking(_jpeg(96 + picture % 32)), metadata=as_client("b"), timeout=120)
            except grpc.aio.AioRpcError as error:
                print(f"  the honest client got {error.code().name}: {error.details()}", flush=True)
            taken.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
    return taken


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
        call = stub.SegmentImage(asking(_jpeg()), metadata=as_client("m"))
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


async def run(name: str) -> None:
    """Attack a new server, and print a line about it."""
    extra = ["--idle-timeout-seconds", "5"] if name == "slow_upload" else []
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder), *extra)
        try:
            alone = await measure(target, 5)
            watching = asyncio.create_task(target.watch())
            attack = asyncio.ensure_future(ATTACKS[name](target))
            beside: list[float] = []
            while not attack.done():
                beside += await measure(target, 1)
            outcome = await attack
            after = await measure(target, 2)
            watching.cancel()
            p99 = [f"{np.percentile(times, 99) * 1000:.0f} ms" for times in (alone, beside, after)]
            alive = "" if target.lives() else "; THE SERVER HAS DIED"
            bugs = len(re.findall("internal error", target.log.read_text()))
            print(
                f"{name}: {dict(outcome)}; peak {target.peak_bytes / GIB:.2f} GiB; honest p99 alone {p99[0]}, beside "
                f"{p99[1]}, after {p99[2]}; internal errors {bugs}{alive}",
                flush=True,
            )
        finally:
            target.close()


def main() -> None:
    """Run the attacks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ATTACKS, []], default=[])
    names = parser.parse_args().names or list(ATTACKS)
    with contextlib.suppress(OSError):
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(4 * GIB))
    for name in names:
        asyncio.run(run(name))


if __name__ == "__main__":
    main()
