"""The requests that wait until those before them are done."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from masklet.errors import ResourceExhausted
from masklet_server.session import events
from masklet_server.session.limits import SessionLimits
from masklet_server.session.prompts import check_waiting_masks


@dataclass(frozen=True, eq=False)
class QueuedRequest:
    """A request, and whether the client has stopped it.

    Attributes:
        request: What the client asks for.
        stopped: Set once a propagation is to end early.
    """

    request: events.Request
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


class RequestQueue:
    """One client's requests, first come, first served.

    Attributes:
        current: The request that is being done: the last one that `next` gave.

    Args:
        limits: Bound how many requests wait (`max_objects`), and how large their masks are.
    """

    def __init__(self, limits: SessionLimits) -> None:
        self.current: QueuedRequest | None = None
        self._waiting: deque[QueuedRequest] = deque()
        self._limits = limits
        self._changed = asyncio.Event()
        self._finished = False

    def add(self, request: events.Request) -> None:
        """Put a request behind the others.

        Raises:
            ResourceExhausted: Too many requests wait, or their masks are too large.
        """
        most = self._limits.max_objects
        if len(self._waiting) >= most:
            raise ResourceExhausted(
                f"{most} requests wait already, the most allowed (max_objects); send further ones once some are "
                "answered, or stop_propagation to end the propagation that they wait for"
            )
        check_waiting_masks(
            (_mask_bytes(one) for one in (request, *[queued.request for queued in self._waiting])), self._limits
        )
        self._waiting.append(QueuedRequest(request))
        self._changed.set()

    def stop(self) -> None:
        """Mark the current request, and all that wait, as stopped."""
        for queued in self._waiting:
            queued.stopped.set()
        if self.current is not None:
            self.current.stopped.set()

    def finish(self) -> None:
        """No more requests will come."""
        self._finished = True
        self._changed.set()

    def clear(self) -> None:
        """Forget all requests that wait."""
        self._waiting.clear()
        self.current = None

    @property
    def has_next(self) -> bool:
        """Whether `next` need not wait."""
        return bool(self._waiting) or self._finished

    async def arrival(self) -> None:
        """The last request is done: wait until there is a next one, or none will come."""
        self.current = None
        while not self.has_next:
            self._changed.clear()
            await self._changed.wait()

    async def next(self) -> QueuedRequest | None:
        """Wait for the next request; None if none will come."""
        await self.arrival()
        if not self._waiting:
            return None
        self.current = self._waiting.popleft()
        return self.current


def _mask_bytes(request: events.Request) -> int:
    return request.prompt.mask_bytes if isinstance(request, events.PromptObject) else 0
