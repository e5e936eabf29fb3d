"""A live series of pictures, of which only those are decoded that there is time for."""

from __future__ import annotations

import asyncio

from masklet_server.video import messages
from masklet_server.video.limits import VideoLimits
from masklet_server.video.picture import Picture
from masklet_server.video.sources.latest_queue import LatestQueue
from masklet_server.video.sources.pictures import PictureSource
from masklet_server.video.sources.sandboxed import Arrival


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
        """See `SandboxedSource.end`."""
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
