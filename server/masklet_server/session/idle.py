"""Notices that nothing moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from masklet.errors import DeadlineExceeded

T = TypeVar("T")


class IdleWatch:
    """Measures the time since the last progress; time in which the server itself is at work does not count.

    Args:
        timeout_seconds: Time without progress after which `expire` raises.
        clock: Seconds that never go back.
    """

    def __init__(self, timeout_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._waits: list[str] = []
        self._timeout = timeout_seconds
        self._clock = clock
        self._last = clock()
        self._busy = 0

    def extend(self, timeout_seconds: float) -> None:
        """From now on, allow so much time without progress."""
        self._timeout = timeout_seconds

    def touch(self) -> None:
        """Something moved."""
        self._last = self._clock()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The server is at work within; may be nested and overlap."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.touch()

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Something is awaited within; named in the error if it never comes."""
        self._waits.append(what)
        try:
            yield
        finally:
            self._waits.remove(what)

    async def patiently(self, awaited: Awaitable[T], what: str) -> T:
        """The result of what only the client can bring about.

        Raises:
            DeadlineExceeded: It has not come within the time without progress, whatever else moved meanwhile.
        """
        # Not wait_for: before Python 3.12 it forgets that it was cancelled if the result comes at the same moment.
        task = asyncio.ensure_future(awaited)
        try:
            with self.waiting(what):
                done, _ = await asyncio.wait({task}, timeout=self._timeout)
            if not done:
                raise self._expired(what)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del task  # what it raised refers to this frame

    async def expire(self) -> NoReturn:
        """Wait until nothing has moved for too long.

        Raises:
            DeadlineExceeded: Always, then.
        """
        while True:
            rest = self._timeout if self._busy else self._last + self._timeout - self._clock()
            if rest <= 0:
                raise self._expired(" and for ".join(dict.fromkeys(self._waits)) or "the client's messages")
            await asyncio.sleep(rest)

    def _expired(self, waits: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"nothing moved for {self._timeout:g} s while waiting for {waits}")
