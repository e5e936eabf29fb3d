"""Who may come in now: sessions at once, requests and bytes a second, and nobody while the server drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator

from masklet.errors import FieldViolation, ResourceExhausted, Unavailable
from masklet_server.metrics import Metrics
from masklet_server.settings import Settings

# Nobody knows when a session ends; this spreads repeats without making people wait.
_RETRY_SECONDS = 5.0
_BUCKETS_BEFORE_SWEEP = 4096
# What a handler may take to clean up once it is cancelled.
_CUT_SECONDS = 10.0

logger = logging.getLogger(__name__)

Clock = Callable[[], float]


class TokenBucket:
    """Grants `rate` tokens a second, and at most `capacity` at once after a pause."""

    def __init__(self, rate: float, capacity: float, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        self._capacity = capacity
        self._clock = clock
        self._tokens = capacity
        self._at = clock()

    def try_take(self, amount: float) -> float:
        """Take `amount` and return 0.0, or take nothing and return the seconds until it can be taken."""
        self._fill()
        if self._tokens < amount:
            return (amount - self._tokens) / self._rate
        self._tokens -= amount
        return 0.0

    def reserve(self, amount: float) -> float:
        """Take `amount` in any case, on credit if need be; return the seconds to wait before it is paid for."""
        self._fill()
        self._tokens -= amount
        return max(0.0, -self._tokens / self._rate)

    @property
    def full(self) -> bool:
        """Whether the bucket is as good as a new one."""
        self._fill()
        return self._tokens >= self._capacity

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now


class RateLimiter:
    """One token bucket for each client; a rate of 0 limits nothing.

    Args:
        rate: Units a second for each client.
        burst_seconds: How long a client must be silent to earn its largest burst, which is `rate` times this and at
            least one unit.
    """

    def __init__(self, rate: float, *, burst_seconds: float = 1.0, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate * burst_seconds)
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    async def take(self, client: str, amount: float) -> None:
        """Return once the client may have sent that much more."""
        if self._rate and (seconds := self._bucket(client).reserve(amount)):
            await asyncio.sleep(seconds)

    def try_take(self, client: str, amount: float = 1.0) -> float:
        """Take and return 0.0, or take nothing and return the seconds until it can be taken."""
        return self._bucket(client).try_take(amount) if self._rate else 0.0

    def _bucket(self, client: str) -> TokenBucket:
        if client not in self._buckets and len(self._buckets) >= _BUCKETS_BEFORE_SWEEP:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.full}
        return self._buckets.setdefault(client, TokenBucket(self._rate, self._capacity, self._clock))


class Admission:
    """Counts what runs, refuses what is too much, and brings everything to an end when the server stops."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.uploads = RateLimiter(settings.upload_bytes_per_second)
        self._requests = RateLimiter(settings.requests_per_second)
        self._settings = settings
        self._metrics = metrics
        self._sessions: Counter[str] = Counter()
        self._running: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._cutting = False

    @property
    def session_count(self) -> int:
        """Sessions running now."""
        return self._sessions.total()

    def check_rate(self, client: str) -> None:
        """Count one request of the client.

        Raises:
            ResourceExhausted: It has sent too many in too short a time.
        """
        if seconds := self._requests.try_take(client):
            raise self._refusal(
                "requests_per_second",
                f"{client} sends more than {self._settings.requests_per_second:g} a second",
                seconds,
            )

    @contextlib.contextmanager
    def session(self, client: str) -> Iterator[None]:
        """Hold one of the places for sessions while the block runs.

        Raises:
            ResourceExhausted: All places are taken, or all that one client may have.
        """
        settings = self._settings
        if settings.max_sessions and self.session_count >= settings.max_sessions:
            raise self._refusal("max_sessions", f"all {settings.max_sessions} sessions of this server are taken")
        if settings.max_sessions_per_client and self._sessions[client] >= settings.max_sessions_per_client:
            raise self._refusal(
                "max_sessions_per_client", f"{client} holds all {settings.max_sessions_per_client} sessions it may have"
            )
        self._sessions[client] += 1
        try:
            yield
        finally:
            self._sessions[client] -= 1
            if not self._sessions[client]:
                del self._sessions[client]

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Run the block as something that a stopping server waits for, and cuts when its patience ends.

        Raises:
            Unavailable: The server is stopping, before the block or in the midst of it.
        """
        if self._draining:
            self._metrics.refused("draining")
            raise Unavailable("the server is shutting down; try again, or another one", retry_after_seconds=1.0)
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            if self._cutting:
                raise Unavailable(
                    "the server shut down before this was finished; send it again", retry_after_seconds=1.0
                ) from None
            raise
        finally:
            self._running.discard(task)
            if not self._running:
                self._idle.set()

    async def drain(self, grace: float) -> None:
        """Let nobody in any more; return when everything has ended, which is cut after `grace` seconds."""
        self._draining = True
        if await self._is_idle_within(grace):
            return
        logger.warning("cutting %d requests after %g s of grace", len(self._running), grace)
        self.cut()
        if not await self._is_idle_within(_CUT_SECONDS):
            logger.error("%d requests do not end although they were cancelled", len(self._running))

    def cut(self) -> None:
        """End at once whatever still runs."""
        self._draining = self._cutting = True
        for task in self._running:
            task.cancel()

    async def _is_idle_within(self, seconds: float) -> bool:
        if self._idle.is_set():  # which wait_for would not find out in no time at all
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            return False
        return True

    def _refusal(self, limit: str, description: str, seconds: float = _RETRY_SECONDS) -> ResourceExhausted:
        self._metrics.refused(limit)
        return ResourceExhausted(
            f"{description} ({limit}); try again in {seconds:.3g} s",
            violations=(FieldViolation(limit, description),),
            retry_after_seconds=seconds,
        )
