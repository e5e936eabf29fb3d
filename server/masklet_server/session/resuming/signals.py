"""Wakes tasks that wait until something is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Signal:
    """Tasks wait until a condition holds; whoever changes something on which one may depend gives the signal.

    A session gives the signal several times a frame, and several tasks wait for different things. So the conditions are
    looked at without waking the tasks, and only a task whose condition holds is woken.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._looks = False

    def give(self) -> None:
        """Something has changed, or is about to change before the event loop goes on: all conditions are looked at."""
        if self._waiting and not self._looks:
            self._looks = True
            next(iter(self._waiting)).get_loop().call_soon(self._look)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until the condition holds. Raises what the condition raises."""
        while not holds():
            woken = asyncio.get_running_loop().create_future()
            self._waiting[woken] = holds
            try:
                await woken
            finally:
                del self._waiting[woken]

    def _look(self) -> None:
        self._looks = False
        for woken, holds in self._waiting.items():
            if not woken.done() and _holds_or_fails(holds):
                woken.set_result(None)


def _holds_or_fails(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except Exception:  # noqa: BLE001 - the task that waits looks again, and gets it
        return True
