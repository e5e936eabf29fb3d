"""What the parts of one session share: its options, its tasks, and the context that holds both."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.engine.serving.loaded_model import LoadedModel, find_loaded
from masklet_server.masks.edges import Edges
from masklet_server.masks.pool import MaskPool
from masklet_server.session.credits import Credits
from masklet_server.session.events import NO_REPLAY, Configure, Delivery, Replay
from masklet_server.session.idle import IdleWatch
from masklet_server.session.limits import SessionLimits
from masklet_server.session.ports import SourceFactory, TrackingEngine
from masklet_server.session.replies import Response, Send
from masklet_server.session.restoring.schedule import SnapshotTaker
from masklet_server.session.restoring.state import Restored


@dataclass(frozen=True, eq=False)
class SessionResources:
    """What a server gives to each of its sessions.

    Attributes:
        engine: Tracks objects.
        sources: Makes the source that decodes a session's video, or downloads it.
        pool: Threads that encode and decode masks.
        limits: What one session may hold.
        share: What the client may have of disk and memory.
    """

    engine: TrackingEngine
    sources: SourceFactory
    pool: MaskPool
    limits: SessionLimits
    share: ClientShare = UNBOUNDED


@dataclass(frozen=True)
class SessionOptions:
    """The client's configuration, completed with the server's defaults and cut to the server's limits.

    Attributes:
        session_id: Identifies the session, and its stream in the engine.
        config: The configuration as the client sent it.
        limits: What the session may hold.
        model: The loaded model that the session uses.
    """

    session_id: str
    config: Configure
    limits: SessionLimits
    model: LoadedModel

    @classmethod
    def resolve(cls, config: Configure, resources: SessionResources, session_id: str = "") -> SessionOptions:
        """Choose the model and the limits for a client's configuration, and an id if the session has none.

        Raises:
            NotFound: The model is not loaded.
            InvalidArgument: The logits that the client asks for do not fit into a message.
        """
        engine, limits = resources.engine, resources.limits
        model = find_loaded(engine.models, config.model)
        if config.return_logits:
            limits = limits.with_logits(4 * model.logits_size**2)
        return cls(session_id or uuid.uuid4().hex, config, limits, model)

    @property
    def latest(self) -> bool:
        """Whether frames that waited too long are skipped; then frames arrive even if the client takes no results."""
        return self.config.delivery is Delivery.LATEST

    @property
    def max_latency_seconds(self) -> float:
        """How long a frame may wait before it is tracked, if only the latest frames are wanted."""
        return self.config.max_latency_seconds or self.limits.max_latency_seconds

    @property
    def window(self) -> int:
        """Number of frame results that may be sent before the client acknowledges the first of them."""
        return min(self.config.window or self.limits.window, self.limits.window)

    @property
    def correction_window(self) -> int:
        """Number of the last tracked frames that can be corrected."""
        return min(self.config.correction_window or self.limits.correction_window, self.limits.correction_window)

    @property
    def waits_for_acks(self) -> bool:
        """Whether the session waits for corrections after its last frame, until all results are acknowledged."""
        return self.config.correction_window > 0 and self.correction_window > 0

    @property
    def edges(self) -> Edges:
        """How the edges of masks are drawn."""
        return self.config.edges or self.model.edges

    @property
    def encode_ahead(self) -> int:
        """Number of the stream's frames that are encoded in one pass, if they are there."""
        return 1 if self.config.deterministic else self.model.encode_ahead


async def either(*awaited: Coroutine[Any, Any, object]) -> None:
    """Wait until one of several things has happened, and cancel the others. Raises what that one raised."""
    tasks = [asyncio.create_task(one) for one in awaited]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # An exception refers to this frame. Together they would keep memory banks until a garbage collection.
        tasks.clear()
        del task


class SessionTasks:
    """The tasks of one session. If one fails, the whole session ends.

    Args:
        name: Part of each task's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()

    def begin(self, coroutine: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Begin a task. It is cancelled when the session ends."""
        task = asyncio.create_task(coroutine, name=f"{name} {self._name}")
        task.add_done_callback(lambda _: self._ended.set())
        self._tasks.append(task)
        return task

    async def until_done(self, main: asyncio.Task[None]) -> None:
        """Wait until `main` ends or another task fails, and raise what it raised. Tasks may be begun meanwhile."""
        # An exception refers to this frame. So the frame must not refer to a task: the two would wait for the garbage
        # collector, and memory banks with them.
        try:
            while not main.done():
                self._ended.clear()
                for task in [task for task in self._tasks if task.done()]:
                    try:
                        task.result()
                    finally:
                        del task
                await self._ended.wait()
            main.result()
        finally:
            del main

    async def cancel(self) -> None:
        """Cancel all tasks and wait for their end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def clear(self) -> None:
        """Forget all tasks, because their exceptions refer to the session and to memory banks."""
        self._tasks.clear()


class Reporter(Protocol):
    """Sends answers without letting anybody wait; see `masklet_server.session.sending.ProblemReporter`."""

    async def report(self, response: Response) -> None:
        """Send the answer as soon as the client reads."""

    async def flush(self) -> None:
        """Wait until all answers are sent."""

    @property
    def is_flushed(self) -> bool:
        """Whether all answers are sent."""


@dataclass(frozen=True, eq=False)
class Survival:
    """How a session survives its server. The default does not.

    Attributes:
        session_id: Its id; empty: any.
        snapshots: Stores snapshots of the session; None: nobody does.
        restored: What the session goes on from; None: it is new.
    """

    session_id: str = ""
    snapshots: SnapshotTaker | None = None
    restored: Restored | None = None


NO_SURVIVAL = Survival()


@dataclass(frozen=True, eq=False)
class SessionContext:
    """What a session gives to its mode.

    Attributes:
        options: The client's configuration within the server's limits.
        engine: Tracks objects.
        pool: Threads that encode and decode masks.
        credits: How many results may still be sent.
        idle: Ends a session that makes no progress.
        tasks: The session's tasks; a mode may begin further ones.
        send: Sends a response to the client.
        reporter: Sends answers later, without waiting for the client.
        replay: What is repeated, because the session begins anew.
        share: What the client may have of disk and memory.
        survival: How the session survives its server.
    """

    options: SessionOptions
    engine: TrackingEngine
    pool: MaskPool
    credits: Credits
    idle: IdleWatch
    tasks: SessionTasks
    send: Send
    reporter: Reporter
    replay: Replay = NO_REPLAY
    share: ClientShare = UNBOUNDED
    survival: Survival = NO_SURVIVAL

    @property
    def limits(self) -> SessionLimits:
        """What the session may hold."""
        return self.options.limits
