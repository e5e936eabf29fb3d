"""A session with a fake engine and fake video, and a client that talks to it without a wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from masklet.prompts import Prompt
from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.masks.pool import MaskPool
from masklet_server.session import events, replies
from masklet_server.session.automatic.mode import AutomaticMode
from masklet_server.session.context import SessionResources
from masklet_server.session.limits import SessionLimits
from masklet_server.session.on_request.mode import OnRequestMode
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.session import Session
from tests.support.fake_sources import FakeSource, FakeSources
from tests.support.fakes import FakeEngine, fake_mask
from tests.support.masks import decode, sandboxed_png

R = TypeVar("R", bound=replies.Response)

# Far more than anything here takes; only a test that fails waits so long.
PATIENCE = 10.0


class Talk:
    """One client of one session.

    Attributes:
        session: The session under test.
        task: Its life.
        responses: What it answered so far.
        reading: While it is not set, the client takes no responses.
    """

    def __init__(
        self,
        config: events.Configure,
        limits: SessionLimits,
        engine: FakeEngine | None = None,
        pool: MaskPool | None = None,
        sources: FakeSources | None = None,
        share: ClientShare = UNBOUNDED,
    ) -> None:
        self.engine = engine or FakeEngine()
        self.sources = sources or FakeSources()
        self.pool = pool or MaskPool(1, sandboxed_png)
        self.responses: list[replies.Response] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._requests: asyncio.Queue[events.Event | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        resources = SessionResources(self.engine, self.sources, self.pool, limits, share)
        self.session = Session(config, resources, self._take)
        self.task = asyncio.create_task(self.session.run(self._incoming()))

    def say(self, *said: events.Event) -> None:
        for event in said:
            self._requests.put_nowait(event)

    def half_close(self) -> None:
        self._requests.put_nowait(None)

    def all(self, kind: type[R]) -> list[R]:
        return [response for response in self.responses if isinstance(response, kind)]

    @property
    def problems(self) -> list[str]:
        return [problem.error.message for problem in self.all(replies.Problem)]

    @property
    def automatic(self) -> AutomaticMode:
        """The session's mode, if propagation is automatic."""
        assert isinstance(self.session.mode, AutomaticMode)
        return self.session.mode

    @property
    def on_request(self) -> OnRequestMode:
        """The session's mode, if propagation is on request."""
        assert isinstance(self.session.mode, OnRequestMode)
        return self.session.mode

    @property
    def source(self) -> FakeSource:
        (source,) = self.sources.made
        return source

    async def taken(self, count: int) -> None:
        """Wait until the session has taken that many frames from its source."""
        await self.until(lambda: self.sources.made and self.source.taken == count)

    async def until(self, reached: Callable[[], object]) -> None:
        """Wait until something holds."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not reached():
            assert asyncio.get_running_loop().time() < deadline, f"never came; so far: {self.responses}"
            if self.task.done():
                self.task.result()
                raise AssertionError(f"the session ended before; its answers: {self.responses}")
            await asyncio.sleep(0.002)

    async def frames(self, count: int) -> list[replies.FrameResult]:
        """Wait for that many results."""
        await self.until(lambda: len(self.all(replies.FrameResult)) >= count)
        return self.all(replies.FrameResult)

    async def end(self) -> None:
        """Wait for the session's end and raise what it raised."""
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE)

    async def quiet(self) -> None:
        """Let everything happen that can happen without the client."""
        for _ in range(50):
            await asyncio.sleep(0.001)

    async def _incoming(self) -> AsyncIterator[events.Event]:
        while (event := await self._requests.get()) is not None:
            yield event

    async def _take(self, response: replies.Response) -> None:
        await self.reading.wait()
        self.responses.append(response)


@contextlib.asynccontextmanager
async def talk(
    config: events.Configure | None = None,
    *,
    engine: FakeEngine | None = None,
    sources: FakeSources | None = None,
    share: ClientShare = UNBOUNDED,
    **limits: float,
) -> AsyncIterator[Talk]:
    """A session that is ended with the block, whatever its state."""
    held = SessionLimits(**limits)  # type: ignore[arg-type]
    client = Talk(config or events.Configure(), held, engine, sources=sources, share=share)
    try:
        yield client
    finally:
        client.task.cancel()
        await asyncio.gather(client.task, return_exceptions=True)
        client.pool.close()


def click(object_id: int = 1, frame_index: int = 0, xy: tuple[float, float] = (5, 5)) -> events.PromptObject:
    return events.PromptObject(GivenPrompt(Prompt(object_id, frame_index, point_coords=[xy])))


def video(frames: int) -> list[events.Event]:
    """A clip of that many frames, and its end."""
    return [events.VideoChunk(bytes(frames)), events.EndOfVideo()]


def ids(result: replies.FrameResult) -> list[int]:
    return [one.object_id for one in result.objects]


def shows(result: replies.ObjectResult, bank: int, frame_index: int) -> bool:
    """Whether the result is the fake engine's mask for the bank of that number."""
    return bool((decode(result.mask) == fake_mask(bank, frame_index)).all())


# Corrections


def lines(client: Talk) -> list[tuple[int, int, list[int]]]:
    """Frame, revision and objects of every result."""
    return [(r.frame_index, r.revision, ids(r)) for r in client.all(replies.FrameResult)]


def prompted(client: Talk) -> list[tuple[int, int]]:
    """Frame and object of the result of every prompt."""
    return [(p.frame_index, p.object.object_id) for p in client.all(replies.PromptResult)]


def violations(client: Talk) -> list[list[str]]:
    """The fields that each error names."""
    return [[v.field for v in problem.error.violations] for problem in client.all(replies.Problem)]


def known_corrections(result: replies.FrameResult, object_id: int, bank: int) -> int:
    """How many corrections of the object the fake engine knew of on that frame."""
    (mask,) = [decode(one.mask) for one in result.objects if one.object_id == object_id]
    (count,) = [n for n in range(8) if (mask == fake_mask(bank, result.frame_index, corrections=n)).all()]
    return count


def ack(client: Talk) -> events.Ack:
    """An acknowledgement of everything that came so far."""
    return events.Ack(client.all(replies.FrameResult)[-1].sequence)


async def finish(client: Talk) -> None:
    """Acknowledge everything, so that a session whose frames can still be corrected ends."""
    client.say(ack(client))
    await client.end()


def at(seconds: float, object_id: int = 1) -> events.PromptObject:
    """A click that names a time."""
    return events.PromptObject(GivenPrompt(Prompt(object_id, pts_seconds=seconds, point_coords=[(5, 5)])))


# Propagation on request

ON_REQUEST = events.Configure(propagation=events.Propagation.ON_REQUEST)


async def answers(client: Talk, count: int) -> list[replies.Response]:
    """Wait for that many answers to requests."""

    def received() -> list[replies.Response]:
        return [r for r in client.responses if not isinstance(r, (replies.Opened, replies.Described, replies.Done))]

    await client.until(lambda: len(received()) >= count)
    return received()


async def propagated(client: Talk, count: int = 1) -> list[replies.PropagationDone]:
    """Wait for the ends of that many propagations."""
    await client.until(lambda: len(client.all(replies.PropagationDone)) >= count)
    return client.all(replies.PropagationDone)
