"""Encoded frames, kept within a bound: those that were asked for last."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

Key = tuple[str, int, int]
"""The video's id, the frame's number, and the picture's width."""


class FrameCache:
    """Pictures by video, frame and width. Who asks for a picture that is being made waits for the same one.

    Args:
        max_bytes: What all pictures together may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._making: dict[Key, asyncio.Future[bytes]] = {}

    async def get(self, key: Key, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The picture, made if it is not here.

        Args:
            key: Which one.
            make: Makes it.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._making:
            self._making[key] = asyncio.ensure_future(self._make(key, make))
        return await asyncio.shield(self._making[key])

    async def _make(self, key: Key, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            picture = await make()
        finally:
            del self._making[key]
        self._kept[key] = picture
        self._bytes += len(picture)
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return picture

    @property
    def held_bytes(self) -> int:
        """What all pictures together take."""
        return self._bytes
