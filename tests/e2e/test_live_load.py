"""Live sessions that come and go as they like: nothing stays behind, and streams beside them notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

import masklet
from masklet import AsyncClient, AsyncLive, Prompt, VideoPacket
from masklet_server.assembly import running_server
from masklet_server.embedded import EmbeddedServer
from masklet_server.settings import checked
from tests.e2e.test_live import access_units
from tests.support.e2e import frames, prompt
from tests.support.processes import decoders

CLICK = Prompt(1, point_coords=[[160, 120]])


@dataclass(frozen=True)
class Held:
    """What a server in this process holds.

    Attributes:
        sessions: Running now.
        bank_bytes: Of all objects' memories.
        decoders: Decoding processes.
        mappings: Blocks of memory shared with them.
        descriptors: Open files of this process, pipes and sockets among them.
        tasks: On the server's event loop.
    """

    sessions: int
    bank_bytes: int
    decoders: int
    mappings: int
    descriptors: int
    tasks: int


class Host:
    """A server on a thread of this process, with an event loop that can be looked at.

    Attributes:
        address: Where clients reach it.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._metrics = f"127.0.0.1:{free.getsockname()[1]}"
        self._settings = checked(
            {
                "address": "127.0.0.1:0",
                "metrics_address": self._metrics,
                "device": "cpu",
                "dtype": "float32",
                "max_sessions": 128,
                "max_sessions_per_client": 128,
                "idle_timeout_seconds": 20,
                "grace_seconds": 0.0,
            }
        )
        self._started = Future[str]()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Host:
        self._thread.start()
        self.address = self._started.result()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with running_server(self._settings) as running:
                self._started.set_result(running.address)
                await self._stop.wait()
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    def held(self) -> Held:
        with urllib.request.urlopen(f"http://{self._metrics}/metrics") as answer:
            text = answer.read().decode()

        def gauge(name: str) -> int:
            found = re.search(rf"^masklet_{name} (\S+)$", text, re.MULTILINE)
            assert found, name
            return int(float(found[1]))

        return Held(
            sessions=gauge("sessions"),
            bank_bytes=gauge("bank_bytes"),
            decoders=len(decoders()),
            mappings=Path("/proc/self/maps").read_text().count("memfd:masklet-pixels"),
            descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            tasks=len(asyncio.all_tasks(self._loop)),
        )

    async def settles(self, before: Held) -> None:
        """Wait until it holds no more than before."""
        deadline = time.monotonic() + 60
        while True:
            now = await asyncio.to_thread(self.held)
            # gRPC's own threads and the metrics server's connections take a few descriptors and keep some.
            few = now.descriptors <= before.descriptors + 8 and now.tasks <= before.tasks + 1
            # Other tests' servers in this process may have a decoder of pictures, which stays.
            freed = now.decoders <= before.decoders and now.mappings <= before.mappings
            if few and freed and (now.sessions, now.bank_bytes) == (0, 0):
                return
            assert time.monotonic() < deadline, f"before: {before}, still: {now}"
            await asyncio.sleep(0.1)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as running:
        yield running


async def misbehave(client: AsyncClient, dice: random.Random) -> None:
    """Open a stream, do something with it, and drop it in some way."""
    delivery = dice.choice(["latest", "lossless"])
    async with client.live(CLICK, delivery=delivery, window=dice.choice([0, 1, 4])) as live:  # type: ignore[arg-type]
        sending = asyncio.create_task(send(live, dice))
        try:
            await drop(live, sending, dice)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def send(live: AsyncLive, dice: random.Random) -> None:
    kind = dice.choice(["frames", "packets", "late packets", "noise", "sizes", "nothing"])
    count = dice.randrange(1, 12)
    for index in range(count if kind != "nothing" else 0):
        if kind == "frames":
            await live.send(frames()[index])
        elif kind == "sizes":
            await live.send(frames()[index][:: index % 3 + 1].copy())
        elif kind == "noise":
            await live.send(VideoPacket(dice.randbytes(500), "h264"))
        else:
            await live.send(VideoPacket(access_units()[index + 3 * (kind != "packets")], "h264"))
        if dice.random() < 0.2:
            live.prompt(Prompt(dice.randrange(1, 4), point_coords=[[dice.randrange(400), 50]]))
        if dice.random() < 0.1:
            live.remove(dice.randrange(1, 4))


async def drop(live: AsyncLive, sending: asyncio.Task[None], dice: random.Random) -> None:
    how = dice.choice(["at once", "after a while", "after results", "after the end", "by cancelling"])
    if how == "after a while":
        await asyncio.sleep(dice.random())
    elif how == "after results":
        for _ in range(dice.randrange(1, 4)):
            await asyncio.wait_for(anext(live, None), 2)
    elif how == "after the end":
        await asyncio.wait_for(sending, 2)
        live.end()
        async for _ in live:
            pass
    elif how == "by cancelling":
        live.cancel()
        await anext(live, None)


async def behave(client: AsyncClient, until: asyncio.Event) -> int:
    """A stream that keeps its manners until it is told to end: every frame comes, in order, with its object."""
    count = 0
    async with client.live(prompt("box"), delivery="lossless") as live:

        async def film() -> None:
            nonlocal count
            while not until.is_set():
                await live.send(frames()[count % len(frames())])
                count += 1
            live.end()

        sending = asyncio.create_task(film())
        indices = []
        async for frame in live:
            indices.append(frame.frame_index)
            assert frame.skipped_frame_indices == ()
            assert list(frame.objects) == [1]
        await sending
    assert indices == list(range(count))
    return count


async def load(host: Host, *, at_once: int, total: int, seconds: float, well_behaved: int) -> int:
    """Sessions come and go until there were `total` and the time is over; how many there were."""
    async with AsyncClient(host.address) as client:
        await client.info()
        before = await asyncio.to_thread(host.held)
        until = asyncio.Event()
        deadline, done = time.monotonic() + seconds, 0

        async def come_and_go(seed: int) -> None:
            nonlocal done
            dice = random.Random(seed)
            while done < total or time.monotonic() < deadline:
                done += 1
                with contextlib.suppress(masklet.MaskletError, asyncio.TimeoutError):
                    await misbehave(client, dice)

        beside = [asyncio.create_task(behave(client, until)) for _ in range(well_behaved)]
        try:
            await asyncio.gather(*(come_and_go(seed) for seed in range(at_once)))
        finally:
            until.set()
        assert all(count > 3 for count in await asyncio.gather(*beside))
        await host.settles(before)
    return done


async def test_sessions_that_come_and_go_leave_nothing(host: Host) -> None:
    assert await load(host, at_once=5, total=20, seconds=0, well_behaved=2) >= 20


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_fifty_sessions_that_come_and_go_for_two_minutes(host: Host) -> None:
    assert await load(host, at_once=50, total=50, seconds=120, well_behaved=4) >= 50


async def test_a_client_that_never_reads_and_never_stops_is_let_go() -> None:
    """Sending alone does not keep a session: its results have to be taken. The client learns of it when it reads."""
    others = len(decoders())
    with EmbeddedServer(device="cpu", dtype="float32", idle_timeout_seconds=2) as address:
        async with AsyncClient(address) as client, client.live(CLICK, window=1) as live:
            deadline, begun = time.monotonic() + 60, False
            with contextlib.suppress(masklet.FailedPrecondition):
                while not begun or len(decoders()) > others:
                    assert time.monotonic() < deadline, "it was not let go"
                    begun = begun or len(decoders()) > others
                    await live.send(frames()[0])
                    await asyncio.sleep(0.02)
            with pytest.raises(masklet.DeadlineExceeded, match="an ack"):
                async for _ in live:
                    pass
