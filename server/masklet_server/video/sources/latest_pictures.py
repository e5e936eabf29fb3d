"""A live series of pictures, of which only those are decoded that there is time for."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from masklet_server.video import messages
from masklet_server.video.sources.pictures import Picture, PictureSource
from masklet_server.video.sources.sandboxed import Arrival
from masklet_server.video.sources.source import VideoLimits

# Pictures of one stream that wait to be decoded or skipped; at least two, whatever their size.
MAX_WAITING_BYTES = 64 * 1024**2

T = TypeVar("T")


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    item: T
    arrived_seconds: float
    nbytes: int


class LatestQueue(Generic[T]):
    """Items of which only those that have not waited too long come out, or else the newest one.

    An item that has waited too long is dropped once there is a newer one; so the newest is never dropped, and one that
    is slow to arrive is not lost. Items are also dropped, oldest first, where they take too much memory.

    Args:
        max_wait_seconds: Since an item arrived.
        max_bytes: Of all that wait; two may always wait.
        clock: What arrivals are told by.
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
        """What `pop` would give; there must be one."""
        self._drop_stale()
        return self._items[0].item

    def push(self, item: T, arrived_seconds: float, nbytes: int) -> None:
        """Let one more wait."""
        self._items.append(_Waiting(item, arrived_seconds, nbytes))
        self._nbytes += nbytes
        self._drop_stale()
        while len(self._items) > 2 and self._nbytes > self._max_bytes:
            self._drop()

    def pop(self) -> T:
        """The oldest item that has not waited too long, or else the newest one; there must be one."""
        self._drop_stale()
        return self._drop()

    def clear(self) -> None:
        """Drop everything."""
        self._items.clear()
        self._nbytes = 0

    def _drop_stale(self) -> None:
        while len(self._items) > 1 and self.is_late:
            self._drop()

    def _drop(self) -> T:
        waiting = self._items.popleft()
        self._nbytes -= waiting.nbytes
        return waiting.item


class LatestPictureSource(PictureSource):
    """Pictures that are decoded one at a time, when they are asked for; those that nobody has time for are dropped.

    Frames keep the indices that their pictures came with: where one is left out, pictures were dropped.
    """

    def __init__(self, image_size: int, limits: VideoLimits, *, max_latency_seconds: float) -> None:
        """See `PictureSource`.

        Args:
            image_size: Side S of the frames that come out.
            limits: What each picture may cost.
            max_latency_seconds: How long a picture may wait before it is dropped for a newer one.
        """
        super().__init__(image_size, limits, frames_ahead=1, live=True)
        self._queue: LatestQueue[tuple[Picture, Arrival]] = LatestQueue(max_latency_seconds)
        self._in_hand: Arrival | None = None
        self._changed = asyncio.Event()

    @property
    def has_waiting(self) -> bool:
        """Whether a picture waits to be decoded."""
        return len(self._queue) > 0

    async def feed(self, picture: Picture) -> None:
        """Take the next picture. Does not wait; see `PictureSource.feed` for what it raises."""
        arrival = self._admit(picture)
        if not self._over:
            self._queue.push((picture, arrival), arrival.arrived_seconds, len(picture.data))
            self._changed.set()

    async def end(self) -> None:
        """See `FrameSource.end`."""
        if not self._ended:
            self._ended = True
            self._arm()
            self._changed.set()

    async def _receive(self, *expected: str) -> messages.Message:
        if self._in_hand is None and not self._over:
            await self._hand_over()
        return await super()._receive(*expected)

    async def _hand_over(self) -> None:
        """Give the decoder the next picture, or tell it that there is none."""
        while not self._queue and not self._ended and not self._over:
            self._changed.clear()
            await self._changed.wait()
        if self._over:
            return
        if not self._queue:
            await self._decoder.send("end")
            return
        picture, self._in_hand = self._queue.pop()
        await self._send_picture(picture, self._in_hand)

    def _arrival_of(self, index: int, pts: int) -> Arrival:
        arrival, self._in_hand = self._in_hand, None
        return arrival or super()._arrival_of(index, pts)

    def _on_taken(self) -> None:
        """Nobody waits to feed."""

    def _finished(self) -> None:
        super()._finished()
        self._queue.clear()
        self._changed.set()
