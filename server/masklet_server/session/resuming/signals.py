"""Wakes tasks that wait until something is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Signal:
    """Tasks wait until a condition holds; whoever changes something on which one may depend gives the signal."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def give(self) -> None:
        """Something has changed: every task that waits looks at its condition again."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until the condition holds."""
        while not holds():
            await self._event.wait()
