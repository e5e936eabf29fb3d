"""Requests that wait for those before them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from masklet.errors import ResourceExhausted
from masklet_server.session import events
from masklet_server.session.limits import SessionLimits
from masklet_server.session.prompts import MAX_WAITING_MASKS


@dataclass(frozen=True, eq=False)
class Asked:
    """A request, and whether it is to end early."""

    request: events.Request
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


class RequestQueue:
    """One client's requests, first come, first served.

    Attributes:
        under_way: The one that `next` has handed out last, until it is asked for another.

    Args:
        limits: Bound how many wait (`max_objects`), and how large their masks are.
    """

    def __init__(self, limits: SessionLimits) -> None:
        self.under_way: Asked | None = None
        self._waiting: deque[Asked] = deque()
        self._most = limits.max_objects
        self._most_mask_bytes = MAX_WAITING_MASKS * limits.max_mask_bytes
        self._changed = asyncio.Event()
        self._finished = False

    def add(self, request: events.Request) -> None:
        """Put a request behind the others.

        Raises:
            ResourceExhausted: Too many wait, or too large ones.
        """
        if len(self._waiting) >= self._most:
            raise ResourceExhausted(
                f"{self._most} requests wait already, the most allowed (max_objects); send further ones once some are "
                "answered, or stop_propagation to end the propagation that they wait for"
            )
        masks = sum(_mask_bytes(asked.request) for asked in self._waiting) + _mask_bytes(request)
        if masks > self._most_mask_bytes:
            raise ResourceExhausted(
                f"the masks of waiting prompts would take {masks} bytes, at most {self._most_mask_bytes} are allowed; "
                "send COCO run-lengths, or fewer ahead"
            )
        self._waiting.append(Asked(request))
        self._changed.set()

    def stop(self) -> None:
        """Mark the request under way, and those that wait, as stopped."""
        for asked in self._waiting:
            asked.stopped.set()
        if self.under_way is not None:
            self.under_way.stopped.set()

    def finish(self) -> None:
        """No more requests will come."""
        self._finished = True
        self._changed.set()

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()
        self.under_way = None

    async def next(self) -> Asked | None:
        """The next request, once there is one; None where none will come."""
        self.under_way = None
        while not self._waiting:
            if self._finished:
                return None
            self._changed.clear()
            await self._changed.wait()
        self.under_way = self._waiting.popleft()
        return self.under_way


def _mask_bytes(request: events.Request) -> int:
    return request.prompt.mask_bytes if isinstance(request, events.PromptObject) else 0
