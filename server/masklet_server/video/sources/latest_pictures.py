"""Frames of a live series of pictures; those are skipped for which there is no time."""

from __future__ import annotations

import asyncio

from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import EndOfInput
from masklet_server.video.picture import Picture
from masklet_server.video.sources.latest_queue import LatestQueue
from masklet_server.video.sources.pictures import PictureSource, message_of
from masklet_server.video.sources.sandboxed import Arrival


class LatestPictureSource(PictureSource):
    """Decodes one picture at a time, when a frame is asked for, and drops pictures that have waited too long.

    Frames keep the indices of their pictures: a gap between two indices says that pictures were dropped.

    Args:
        image_size: Side S of the frames that come out.
        limits: What each picture may cost.
        max_latency_seconds: How long a picture may wait before it is dropped for a newer one.
        share: What the client may have of disk and of decoders' memory.
    """

    def __init__(
        self, image_size: int, limits: VideoLimits, *, max_latency_seconds: float, share: ClientShare = UNBOUNDED
    ) -> None:
        super().__init__(image_size, limits, frames_ahead=1, live=True, share=share)
        self._queue: LatestQueue[tuple[Picture, Arrival]] = LatestQueue(max_latency_seconds)
        self._decoding: Arrival | None = None
        self._changed = asyncio.Event()

    @property
    def has_waiting(self) -> bool:
        """Whether a picture waits to be decoded."""
        return len(self._queue) > 0

    def has_room_for(self, picture: Picture) -> bool:
        """Whether the picture can be fed without waiting: always, because old ones are dropped."""
        return True

    async def feed(self, picture: Picture) -> None:
        """Take the next picture; raises what `PictureSource.feed` raises."""
        arrival = self._admit(picture)
        if not self._over:
            self._queue.push((picture, arrival), arrival.arrived_seconds, len(picture.data))
            self._changed.set()

    async def end(self) -> None:
        """Say that nothing more will be fed; may be called twice."""
        if not self._ended:
            self._ended = True
            self._start_timer()
            self._changed.set()

    async def _supply(self) -> None:
        """Send the next picture to the decoder, or the end if there is none, unless one is being decoded."""
        if self._decoding is not None:
            return
        while not self._queue and not self._ended and not self._over:
            self._changed.clear()
            await self._changed.wait()
        if self._over:
            return
        if not self._queue:
            await self._decoder.send(EndOfInput())
            return
        picture, self._decoding = self._queue.pop()
        await self._decoder.send(message_of(picture, self._decoding, picture.data))

    def _arrival_of(self, index: int, pts: int) -> Arrival:
        arrival, self._decoding = self._decoding, None
        return arrival or super()._arrival_of(index, pts)

    def _finished(self) -> None:
        super()._finished()
        self._queue.clear()
        self._changed.set()
