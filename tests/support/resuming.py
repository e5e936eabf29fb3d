"""Resumable sessions with a fake engine and fake video, and clients whose calls break, without a wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TypeVar

from masklet.errors import Internal, MaskletError
from masklet_server.masks.pool import MaskPool
from masklet_server.session import events, replies
from masklet_server.session.context import SessionResources
from masklet_server.session.limits import ParkingLimits, SessionLimits, SnapshotLimits
from masklet_server.session.restoring.store import SnapshotStore
from masklet_server.session.resuming.attachment import Attachment
from masklet_server.session.resuming.parking import ResumableSessions
from masklet_server.session.resuming.resumable_session import Owner
from masklet_server.snapshots.blobs import BlobStore
from tests.support.fake_sources import FakeSource, FakeSources
from tests.support.fakes import FakeEngine

R = TypeVar("R", bound=replies.Response)
PATIENCE = 10.0
CONFIG = events.Configure(resumable=True)
ME = Owner("me")


# What a stored response stands for: the number of its request, and the response.
STORED: dict[bytes, tuple[int, replies.Response]] = {}


def encode(response: replies.Response) -> bytes:
    """Bytes that stand for a response; a real one is a message."""
    if isinstance(response, replies.Stored):
        return response.message
    number, inner = (response.request_id, response.response) if isinstance(response, replies.Answer) else (0, response)
    name = b"%d" % len(STORED)
    STORED[name] = (number, inner)
    return name


class Counts:
    """Counts what happens to resumable sessions."""

    def __init__(self) -> None:
        self.parked_now = 0
        self.resumes: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.snapshots: Counter[str] = Counter()
        self.bytes_now = 0

    def parked(self, count: int) -> None:
        self.parked_now = count

    def resumed(self, how: str) -> None:
        self.resumes[how] += 1

    def parked_ended(self, why: str) -> None:
        self.ended[why] += 1

    def snapshot(self, outcome: str) -> None:
        self.snapshots[outcome] += 1

    def snapshot_bytes(self, size: int) -> None:
        self.bytes_now = size


class Call:
    """One call of a client: what it says, and what it receives.

    Attributes:
        task: The server's side of the call.
        responses: Everything received.
        reading: While it is not set, the client reads nothing.
    """

    def __init__(self, lot: Lot, attachment: Attachment) -> None:
        self.responses: list[replies.Response] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._requests: asyncio.Queue[events.Event | None] = asyncio.Queue()
        self.attachment = attachment
        self.task = asyncio.create_task(self._run(lot, attachment))

    async def _run(self, lot: Lot, attachment: Attachment) -> None:
        try:
            await attachment.run(self._incoming(), self._take)
        finally:
            lot.sessions.leave(attachment)

    async def _incoming(self) -> AsyncIterator[events.Event]:
        while (event := await self._requests.get()) is not None:
            yield event

    async def _take(self, response: replies.Response) -> None:
        await self.reading.wait()
        self.responses.append(response)

    def say(self, *said: events.Event) -> None:
        for event in said:
            self._requests.put_nowait(event)

    def half_close(self) -> None:
        self._requests.put_nowait(None)

    async def breaks(self) -> None:
        """The connection breaks, with everything that was said and not taken."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def end(self) -> None:
        """Wait for the call's end and raise what it raised."""
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE)

    @property
    def numbered(self) -> list[tuple[int, replies.Response]]:
        """The session's responses with their numbers; answers without the number of their request."""
        found = [(one.number, one.response) for one in self.responses if isinstance(one, replies.Numbered)]
        return [(n, one.response if isinstance(one, replies.Answer) else one) for n, one in found]

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.numbered]

    def all(self, kind: type[R]) -> list[R]:
        plain = [one for one in self.responses if not isinstance(one, replies.Numbered)]
        return [one for one in (*plain, *(response for _, response in self.numbered)) if isinstance(one, kind)]

    @property
    def grant(self) -> replies.ResumeGrant:
        """How the session can be resumed; it was opened already."""
        (opened,) = self.all(replies.Opened)
        assert opened.resume is not None
        return opened.resume

    @property
    def resumed(self) -> replies.Resumed:
        (resumed,) = self.all(replies.Resumed)
        return resumed

    async def until(self, reached: Callable[[], object]) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not reached():
            assert asyncio.get_running_loop().time() < deadline, f"never came; so far: {self.responses}"
            if self.task.done():
                self.task.result()
                assert reached(), f"the call ended before; its responses: {self.responses}"
                return
            await asyncio.sleep(0.002)

    async def frames(self, count: int) -> list[replies.FrameResult]:
        """Wait for that many results."""
        await self.until(lambda: len(self.all(replies.FrameResult)) >= count)
        return self.all(replies.FrameResult)

    def ack(self) -> None:
        """Acknowledge everything that came so far."""
        self.say(events.Ack(self.all(replies.FrameResult)[-1].sequence))


class Lot:
    """All sessions of a server.

    Attributes:
        sessions: What is tested.
        counts: What it has told.
        engine: Of all sessions.
        sources: Of all sessions.
    """

    def __init__(self, parking: ParkingLimits, limits: SessionLimits, blobs: BlobStore | None = None) -> None:
        self.engine, self.sources, self.pool, self.counts = FakeEngine(), FakeSources(), MaskPool(1), Counts()
        self.resources = SessionResources(self.engine, self.sources, self.pool, limits)
        self.store = (
            None if blobs is None else SnapshotStore(blobs, bytes(32), SnapshotLimits(frames=3), self.counts, encode)
        )
        self.sessions = ResumableSessions(parking, self.counts, _conclude, self.store)
        self.engine.numbers_by_object = True
        self.calls: list[Call] = []

    def begin(self, config: events.Configure = CONFIG, owner: Owner = ME) -> Call:
        return self._call(self.sessions.begin(replace(config, resumable=True), self.resources, owner))

    def resume(self, resume: events.Resume, owner: Owner = ME) -> Call:
        return self._call(self.sessions.resume(resume, owner, lambda: self.resources))

    async def come_back(self, resume: events.Resume, owner: Owner = ME) -> Call:
        """Resume a session that this server has, or whose snapshots it can reach."""
        return self._call(await self.sessions.resume_or_restore(resume, owner, lambda: self.resources))

    def again(self, call: Call, *, last: int | None = None) -> Call:
        """Resume the session of a call, after the last response that the call has received, or another one."""
        if last is None:
            last = max(call.numbers, default=0)
        return self.resume(events.Resume(call.grant.token, last))

    def _call(self, attachment: Attachment) -> Call:
        self.calls.append(Call(self, attachment))
        return self.calls[-1]

    @property
    def source(self) -> FakeSource:
        return self.sources.made[-1]

    async def quiet(self) -> None:
        """Let everything happen that can happen without the client."""
        for _ in range(50):
            await asyncio.sleep(0.001)

    async def nothing_is_left(self, *, alone: bool = True) -> None:
        """Wait until everything is freed; only a failing test waits long."""
        deadline = asyncio.get_running_loop().time() + 1.0
        while self.sessions.running or self.sessions.parked or self.open_sources or (alone and self.other_tasks):
            assert asyncio.get_running_loop().time() < deadline, (self.open_sources, self.other_tasks)
            await asyncio.sleep(0.002)

    @property
    def open_sources(self) -> list[FakeSource]:
        """Decoders that run."""
        return [one for one in self.sources.made if not one.closed]

    @property
    def other_tasks(self) -> set[str]:
        """Names of all tasks but the test's own."""
        return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def _conclude(error: Exception) -> MaskletError:
    return error if isinstance(error, MaskletError) else Internal(f"a bug: {error!r}")


@contextlib.asynccontextmanager
async def lot(
    *,
    park_seconds: float = 30.0,
    max_parked: int = 32,
    max_parked_per_client: int = 8,
    keep_bytes: int = 1_000_000,
    blobs: BlobStore | None = None,
    alone: bool = True,
    **limits: float,
) -> AsyncIterator[Lot]:
    """Sessions that are ended with the block, after which nothing of them is left; `alone`: nor of anything else."""
    parking = ParkingLimits(park_seconds, max_parked, max_parked_per_client, keep_bytes)
    held = Lot(parking, SessionLimits(**limits), blobs)  # type: ignore[arg-type]
    try:
        yield held
    finally:
        for call in held.calls:
            call.task.cancel()
        await asyncio.gather(*(call.task for call in held.calls), return_exceptions=True)
        await held.sessions.close()
        held.pool.close()
    await held.nothing_is_left(alone=alone)
