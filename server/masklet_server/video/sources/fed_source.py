"""What pictures and packets have in common: they are fed one by one, and those that come too early wait on disk."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from masklet_server.budgets.shares import ClientShare
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import EndOfInput, FromDecoder
from masklet_server.video.sources.backlog import Backlog
from masklet_server.video.sources.sandboxed import SandboxedSource

T = TypeVar("T")


class FedSource(SandboxedSource, Generic[T]):
    """A source that sends the decoder some items ahead. Those behind them wait in a `Backlog`.

    Whoever feeds it should wait for room, unless what follows in the client's messages is needed now.

    Args:
        image_size: Side S of the frames that come out.
        limits: What the stream may cost.
        frames_ahead: Frames that are decoded before they are asked for.
        what: What is fed, for errors: "frame" or "packet".
        share: What the client may have of disk and of decoders' memory.
    """

    def __init__(
        self, image_size: int, limits: VideoLimits, *, frames_ahead: int, what: str, share: ClientShare
    ) -> None:
        super().__init__(image_size, limits, frames_ahead=frames_ahead, share=share)
        self._backlog: Backlog[T] = Backlog(limits.max_upload_bytes, what, share.disk)
        self._forwarding = asyncio.Lock()
        self._end_sent = False
        self._moved = asyncio.Event()

    @abc.abstractmethod
    def _fits(self, item: T) -> bool:
        """Whether the decoder has room for an item."""

    @abc.abstractmethod
    def _send_item(self, item: T, data: bytes) -> None:
        """Send an item with its data to the decoder, without waiting until it reads."""

    async def end(self) -> None:
        """Say that nothing more will be fed; may be called twice."""
        if not self._ended:
            self._ended = True
            self._start_timer()
            await self._forward()

    def _has_room(self, item: T) -> bool:
        """Whether an item can go to the decoder at once, or is dropped because the decoder has ended."""
        return self._over or (not self._backlog and self._fits(item))

    async def _until(self, has_room: Callable[[], bool]) -> None:
        while not has_room():
            self._moved.clear()
            await self._moved.wait()

    async def _feed(self, item: T, data: bytes) -> None:
        """Send an item to the decoder, or let it wait; nothing happens if the decoder has ended.

        Raises:
            ResourceExhausted: Those that wait take more than `max_upload_bytes`, or the disk is full.
        """
        if self._over:
            return
        if self._has_room(item):
            self._send_item(item, data)
        else:
            await self._backlog.append(item, data)
            await self._forward()

    async def _receive(self) -> FromDecoder:
        if not self._over:
            await self._supply()
        return await super()._receive()

    async def _supply(self) -> None:
        """Send the decoder what it can take, before its next message is waited for."""
        await self._forward()

    async def _forward(self) -> None:
        """Send the decoder what waits, as far as it has room, and the end after the last item."""
        async with self._forwarding:
            while self._backlog and self._fits(self._backlog.peek()) and not self._over:
                item, data = await self._backlog.first()
                # Nothing is awaited from here on: a cancellation must not lose an item, or send it twice.
                if not self._over:
                    self._backlog.drop_first()
                    self._send_item(item, data)
            if self._ended and not self._backlog and not self._end_sent and not self._over:
                self._end_sent = True
                self._decoder.write(EndOfInput())
        self._moved.set()

    def _on_taken(self) -> None:
        self._moved.set()

    def _finished(self) -> None:
        super()._finished()
        self._moved.set()

    def _free(self) -> None:
        self._backlog.clear()
