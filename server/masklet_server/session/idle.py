"""Ends a session that makes no progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from masklet.errors import DeadlineExceeded

T = TypeVar("T")


class IdleWatch:
    """Measures the time since the last progress. Time in which the server itself works does not count.

    Args:
        timeout_seconds: Time without progress after which `expire` raises an error.
        longest_seconds: Time after which it raises one in any case; 0: never.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self, timeout_seconds: float, *, longest_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._waits: list[str] = []
        self._timeout = timeout_seconds
        self._clock = clock
        self._last = self._began = clock()
        self._longest = longest_seconds
        self._busy = 0
        self._rest_began: float | None = None
        self._rested = 0.0
        self._rested_since_progress = 0.0

    def extend(self, timeout_seconds: float) -> None:
        """Set the time without progress that is allowed from now on."""
        self._timeout = timeout_seconds

    def touch(self) -> None:
        """There was progress: start to measure again."""
        self._last = self._clock()
        self._rested_since_progress = 0.0

    @property
    def quiet_seconds(self) -> float:
        """Time since the last progress."""
        return self._clock() - self._last

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The server works inside the block. Blocks may be nested and may overlap."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.touch()

    def rest(self) -> None:
        """The client is away, and may come back: the time does not count until `resume`. May be called twice."""
        if self._rest_began is None:
            self._rest_began = self._clock()

    def resume(self, at_most_seconds: float) -> None:
        """The client is back. The time since `rest` does not count.

        Args:
            at_most_seconds: Without progress, no more than this is left out, however often the client goes away.
        """
        if self._rest_began is None:
            return
        rested, self._rest_began = self._clock() - self._rest_began, None
        rested = min(rested, max(0.0, at_most_seconds - self._rested_since_progress))
        self._rested += rested
        self._rested_since_progress += rested
        self._last = min(self._clock(), self._last + rested)

    @property
    def is_resting(self) -> bool:
        """Whether the client is away, and may come back."""
        return self._rest_began is not None

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Something is awaited inside the block. The error names it, if it never comes."""
        self._waits.append(what)
        try:
            yield
        finally:
            self._waits.remove(what)

    async def wait_for_client(self, awaited: Awaitable[T], what: str) -> T:
        """Wait for something that only the client can cause, and return its result. Other progress does not count.

        Args:
            awaited: What is waited for.
            what: Its description, for the error.

        Raises:
            DeadlineExceeded: It has not come within the time that is allowed without progress.
        """
        # Not wait_for: before Python 3.12, it loses a cancellation that comes together with the result.
        task = asyncio.ensure_future(awaited)
        began, rested = self._clock(), self._rested
        try:
            with self.waiting(what):
                while not task.done():
                    left = (
                        self._timeout
                        if self.is_resting
                        else began + self._rested - rested + self._timeout - self._clock()
                    )
                    if left <= 0:
                        raise self._expired(what)
                    await asyncio.wait({task}, timeout=left)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del task  # its exception refers to this frame

    async def expire(self) -> NoReturn:
        """Wait until there was no progress for too long, or until the session has lasted too long.

        Raises:
            DeadlineExceeded: This is so.
        """
        while True:
            rest = self._timeout if self._busy or self.is_resting else self._last + self._timeout - self._clock()
            if rest <= 0:
                raise self._expired(" and for ".join(dict.fromkeys(self._waits)) or "the client's messages")
            if self._longest:
                left = self._began + self._longest - self._clock()
                if left <= 0:
                    raise DeadlineExceeded(
                        f"the session has lasted for max_session_seconds = {self._longest:g}; begin another one"
                    )
                rest = min(rest, left)
            await asyncio.sleep(rest)

    def _expired(self, waits: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"no progress for {self._timeout:g} s while waiting for {waits}")
