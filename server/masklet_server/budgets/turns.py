"""Turns of requests: so many at once, the rest wait, and clients are served in rotation."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator


class TooManyWaitingError(Exception):
    """A client has as many requests waiting as it may have."""


class Turns:
    """Lets `at_once` holders run, and of these at most `per_client` of one client.

    Who waits is let in by client in rotation, and within a client in order, so that a client with a thousand requests
    delays another one by one turn.

    Args:
        at_once: Turns that are held at once, at most.
        per_client: The same of one client.
        max_waiting: How many of one client may wait; None: any number.
    """

    def __init__(self, at_once: int, per_client: int, *, max_waiting: int | None = None) -> None:
        self._max_waiting = max_waiting
        self._at_once = at_once
        self._per_client = min(per_client, at_once)
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def held(self) -> int:
        """How many turns are held now."""
        return self._held.total()

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(map(len, self._waiting.values()))

    @contextlib.asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Hold a turn while the block runs; waits for it first.

        Raises:
            TooManyWaitingError: Too many of the client wait already.
        """
        await self._take(client)
        try:
            yield
        finally:
            self._give_back(client)

    async def _take(self, client: str) -> None:
        queue = self._waiting.get(client)
        if queue is None and self._is_free_for(client):
            self._held[client] += 1
            return
        if queue is not None and self._max_waiting is not None and len(queue) >= self._max_waiting:
            raise TooManyWaitingError
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._forget(client, waiter)
            else:  # the turn was given just before the client left
                self._give_back(client)
            raise

    def _is_free_for(self, client: str) -> bool:
        return self.held < self._at_once and self._held[client] < self._per_client

    def _give_back(self, client: str) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        self._let_in()

    def _let_in(self) -> None:
        for client in list(self._waiting):
            queue = self._waiting[client]
            while queue and queue[0].cancelled():  # has left, and its task has not run since
                queue.popleft()
            if queue and self._is_free_for(client):
                self._held[client] += 1
                queue.popleft().set_result(None)
                self._waiting.move_to_end(client)
            if not queue:
                del self._waiting[client]

    def _forget(self, client: str, waiter: asyncio.Future[None]) -> None:
        queue = self._waiting.get(client, deque())
        if waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[client]
