"""Encoded frames, kept within a bound: those that were asked for last."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Key = tuple[str, int, int]
"""The video's id, the frame's number, and the picture's width."""


@dataclass(eq=False)
class _Making:
    """A picture that is being made, and how many wait for it."""

    task: asyncio.Task[bytes]
    waiting: int = 0


class FrameCache:
    """Pictures by video, frame and width. Who asks for a picture that is being made waits for the same one.

    A picture is made for as long as somebody waits for it. When the last one gives up, making it is cancelled.

    Args:
        max_bytes: What all pictures together may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._making: dict[Key, _Making] = {}

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
            self._making[key] = _Making(asyncio.ensure_future(self._make(key, make)))
        making = self._making[key]
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.waiting -= 1
            if not making.waiting:
                # Who asks for it from now on has it made anew.
                if self._making.get(key) is making:
                    del self._making[key]
                making.task.cancel()

    async def _make(self, key: Key, make: Callable[[], Awaitable[bytes]]) -> bytes:
        picture = await make()
        self._bytes += len(picture) - len(self._kept.pop(key, b""))
        self._kept[key] = picture
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return picture

    @property
    def held_bytes(self) -> int:
        """What all pictures together take."""
        return self._bytes
