"""A queue that gives the latest items, and drops those that have waited too long."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

# Pictures of one stream that wait to be decoded or skipped; at least two, whatever their size.
MAX_WAITING_BYTES = 64 * 1024**2

T = TypeVar("T")


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    item: T
    arrived_seconds: float
    nbytes: int


class LatestQueue(Generic[T]):
    """A queue from which items come in order, except those that have waited too long.

    An item that has waited too long is dropped when there is a newer one. So the newest item is never dropped, however
    late it is. Items are also dropped, oldest first, if all of them take too much memory.

    Args:
        max_wait_seconds: How long an item may wait, from its arrival.
        max_bytes: Memory for all items that wait; two may always wait, whatever their size.
        clock: Gives the time in seconds; arrivals are on the same clock.
    """

    def __init__(
        self,
        max_wait_seconds: float,
        *,
        max_bytes: int = MAX_WAITING_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_wait = max_wait_seconds
        self._max_bytes = max_bytes
        self._clock = clock
        self._items: deque[_Waiting[T]] = deque()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_late(self) -> bool:
        """Whether the oldest item has waited too long."""
        return bool(self._items) and self._items[0].arrived_seconds < self._clock() - self._max_wait

    def peek(self) -> T:
        """The item that `pop` would return; the queue must not be empty."""
        self._drop_stale()
        return self._items[0].item

    def push(self, item: T, arrived_seconds: float, nbytes: int) -> None:
        """Add an item.

        Args:
            item: The item.
            arrived_seconds: When it arrived.
            nbytes: Memory that it takes.
        """
        self._items.append(_Waiting(item, arrived_seconds, nbytes))
        self._nbytes += nbytes
        self._drop_stale()
        while len(self._items) > 2 and self._nbytes > self._max_bytes:
            self._drop()

    def pop(self) -> T:
        """Remove and return the oldest item that has not waited too long, or the newest one if all have.

        The queue must not be empty.
        """
        self._drop_stale()
        return self._drop()

    def clear(self) -> None:
        """Drop all items that wait."""
        self._items.clear()
        self._nbytes = 0

    def _drop_stale(self) -> None:
        while len(self._items) > 1 and self.is_late:
            self._drop()

    def _drop(self) -> T:
        waiting = self._items.popleft()
        self._nbytes -= waiting.nbytes
        return waiting.item
