"""Which calls are admitted: limits on sessions, requests and bytes, and none while the server drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Protocol, TypeVar

from masklet.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from masklet_server.budgets.budget import exhausted
from masklet_server.budgets.turns import TooManyWaitingError, Turns
from masklet_server.metrics import Metrics
from masklet_server.settings import Settings

# When a session ends is not known. This spreads repeated calls without a long wait.
_RETRY_SECONDS = 5.0
_MAX_BUCKETS = 4096
# Time for a handler to clean up once it is cancelled.
_CLEANUP_SECONDS = 10.0
# Requests to all methods but Track and SegmentImage have some bytes, and the health service answers without a token.
# gRPC has one limit on messages for all methods. So few of these requests are received at once, and quickly.
_SMALL_AT_ONCE = 32
_SMALL_PER_CLIENT = 2
_SMALL_SECONDS = 5.0
_SMALL_BYTES = 64 * 1024

# So many requests of a client may wait for each that may run. One that waits costs kilobytes: its message is not read.
WAITING_PER_TURN = 32

logger = logging.getLogger(__name__)

current_refusal: ContextVar[ResourceExhausted | None] = ContextVar("current_refusal", default=None)
"""Why the session call that runs is one too many; None if it is not. See `Admission.session`."""

Clock = Callable[[], float]
T = TypeVar("T")


class Message(Protocol):
    """A message of Protobuf, of any version of its types."""

    def ByteSize(self) -> int:  # noqa: N802 - its name in Protobuf
        """Size of the encoded message in bytes."""


SmallMessage = TypeVar("SmallMessage", bound=Message)


class TokenBucket:
    """Gives `rate` tokens a second, and at most `capacity` at once after a pause."""

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
        """Take `amount`, also if there is less; return the seconds to wait until the bucket has made up for it."""
        self._fill()
        self._tokens -= amount
        return max(0.0, -self._tokens / self._rate)

    @property
    def full(self) -> bool:
        """Whether the bucket is in the state of a new one."""
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
        burst_seconds: How long a client must be silent before it may send its largest burst, which is `rate` times this
            and at least one unit.
        clock: Gives the time in seconds.
    """

    def __init__(self, rate: float, *, burst_seconds: float = 1.0, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate * burst_seconds)
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        """How many clients have a bucket now."""
        return len(self._buckets)

    async def take(self, client: str, amount: float) -> None:
        """Count what the client has sent; return when its rate allows that much."""
        if self._rate and (seconds := self._bucket(client).reserve(amount)):
            await asyncio.sleep(seconds)

    def try_take(self, client: str, amount: float = 1.0) -> float:
        """Take and return 0.0, or take nothing and return the seconds until it can be taken."""
        return self._bucket(client).try_take(amount) if self._rate else 0.0

    def _bucket(self, client: str) -> TokenBucket:
        if client not in self._buckets and len(self._buckets) >= _MAX_BUCKETS:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.full}
        return self._buckets.setdefault(client, TokenBucket(self._rate, self._capacity, self._clock))


class Admission:
    """Counts running sessions and requests, refuses those beyond the limits, and ends all when the server stops.

    Attributes:
        uploads: Limits the bytes that each client sends.

    Args:
        settings: The limits.
        metrics: Counts refusals.
        replaceable: Number of a client's sessions that another call may take from the call that has them.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, replaceable: Callable[[str], int] = lambda client: 0
    ) -> None:
        self._replaceable = replaceable
        self._extra: Counter[str] = Counter()
        self.uploads = RateLimiter(settings.upload_bytes_per_second)
        self._requests = RateLimiter(settings.requests_per_second)
        self._settings = settings
        self._metrics = metrics
        per_client = min(settings.max_requests, settings.max_requests_per_client)
        self._turns = Turns(settings.max_requests, per_client, max_waiting=WAITING_PER_TURN * per_client)
        self._small_turns = Turns(_SMALL_AT_ONCE, _SMALL_PER_CLIENT, max_waiting=WAITING_PER_TURN * _SMALL_PER_CLIENT)
        self._sessions: Counter[str] = Counter()
        self._running: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._became_idle = asyncio.Event()
        self._draining = False
        self._cancelling = False

    @property
    def session_count(self) -> int:
        """How many sessions run now."""
        return self._sessions.total()

    def check_rate(self, client: str) -> None:
        """Count one request of the client.

        Raises:
            ResourceExhausted: The client has sent too many requests in a short time.
        """
        if seconds := self._requests.try_take(client):
            raise self._refusal(
                "requests_per_second",
                f"{client} sends more than {self._settings.requests_per_second:g} requests a second",
                seconds,
            )

    @contextlib.asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Receive and answer a request of the client in the block, once it is its turn.

        Raises:
            ResourceExhausted: Too many requests of the client wait already.
        """
        try:
            async with self._turns.turn(client):
                yield
        except TooManyWaitingError:
            raise self._refusal(
                "max_requests_per_client", f"{client} has as many requests waiting as one client may have", 1.0
            ) from None

    async def receive(self, requests: AsyncIterable[T]) -> T:
        """The only message of a request.

        Raises:
            DeadlineExceeded: It takes longer than `receive_seconds`.
            InvalidArgument: There is none, or more than one.
        """
        return await self._receive(requests, self._settings.receive_seconds)

    async def in_time(self, awaitable: Awaitable[T], text: str) -> T:
        """Wait for what depends on the client.

        Args:
            awaitable: Is cancelled when the time is over.
            text: What has not happened in time.

        Raises:
            DeadlineExceeded: It takes longer than `receive_seconds`.
        """
        seconds = self._settings.receive_seconds
        try:
            return await asyncio.wait_for(awaitable, seconds)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            self._metrics.refused("receive_seconds")
            raise DeadlineExceeded(f"{text} in {seconds:g} s (receive_seconds)") from None

    async def receive_small(self, client: str, requests: AsyncIterable[SmallMessage]) -> SmallMessage:
        """The only message of a request that has some bytes, such as one for the server's health.

        Raises:
            DeadlineExceeded: It takes longer than a few seconds.
            InvalidArgument: There is none, or more than one, or it is large.
            ResourceExhausted: Too many requests of the client wait already.
        """
        try:
            async with self._small_turns.turn(client):
                message = await self._receive(requests, min(_SMALL_SECONDS, self._settings.receive_seconds))
        except TooManyWaitingError:
            raise self._refusal("small_requests", f"{client} has too many requests waiting", 1.0) from None
        if (size := message.ByteSize()) > _SMALL_BYTES:
            raise InvalidArgument(f"the request has {size} bytes; at most {_SMALL_BYTES} are allowed for this method")
        return message

    async def _receive(self, requests: AsyncIterable[T], seconds: float) -> T:
        try:
            messages = await asyncio.wait_for(_at_most_two(requests), seconds)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            self._metrics.refused("receive_seconds")
            raise DeadlineExceeded(
                f"the request's message has not arrived in {seconds:g} s (receive_seconds); send it faster"
            ) from None
        if len(messages) != 1:
            raise InvalidArgument("the request must be exactly one message")
        return messages[0]

    @contextlib.contextmanager
    def session(self, client: str) -> Iterator[None]:
        """Count one session of the client while the block runs.

        A call too many may be one that takes the place of another call, whose connection is broken without the server's
        having noticed. So it is let in if the client has a session that can be resumed; `current_refusal` is then what
        it must be refused with if its first message is not a `resume` of such a session.

        Raises:
            ResourceExhausted: The server, or the client, has as many sessions as it may have.
        """
        refusal = self._session_refusal(client)
        if refusal is not None and self._extra[client] >= self._replaceable(client):
            self._metrics.refused(refusal.violations[0].field)
            raise refusal
        current_refusal.set(refusal)
        with _counted(self._sessions, client), _counted(self._extra, client, int(refusal is not None)):
            yield

    def _session_refusal(self, client: str) -> ResourceExhausted | None:
        """Why the client may have no further session."""
        settings = self._settings
        if settings.max_sessions and self.session_count >= settings.max_sessions:
            text = f"all {settings.max_sessions} sessions of this server are in use"
            return exhausted("max_sessions", text, _RETRY_SECONDS)
        if settings.max_sessions_per_client and self._sessions[client] >= settings.max_sessions_per_client:
            text = f"{client} uses all {settings.max_sessions_per_client} sessions that one client may have"
            return exhausted("max_sessions_per_client", text, _RETRY_SECONDS)
        return None

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Run the block as work for which a stopping server waits, and which it cancels after the time of grace.

        Raises:
            Unavailable: The server is stopping already, or the block was cancelled because it stopped.
        """
        if self._draining:
            self._metrics.refused("draining")
            raise Unavailable(
                "the server is shutting down; try again later, or use another server", retry_after_seconds=1.0
            )
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            if self._cancelling:
                raise Unavailable(
                    "the server shut down before this was finished; resume the stream, or send it again",
                    retry_after_seconds=1.0,
                ) from None
            raise
        finally:
            self._running.discard(task)
            if not self._running:
                self._idle.set()
                self._became_idle.set()

    async def became_idle(self) -> None:
        """Wait until a block of `work` has ended after which none runs; one task may wait."""
        self._became_idle.clear()
        await self._became_idle.wait()

    async def drain(self, grace: float) -> None:
        """Admit nothing more; return when everything has ended. What still runs after `grace` seconds is cancelled."""
        self._draining = True
        if await self._is_idle_within(grace):
            return
        if grace:  # without any, nobody has waited for them
            logger.warning("ending the requests that still run after %g s of grace: %d", grace, len(self._running))
        self.cancel_all()
        if not await self._is_idle_within(_CLEANUP_SECONDS):
            logger.error("%d requests have not ended although they were cancelled", len(self._running))

    def cancel_all(self) -> None:
        """Cancel all that still runs, at once."""
        self._draining = self._cancelling = True
        for task in self._running:
            task.cancel()

    async def _is_idle_within(self, seconds: float) -> bool:
        if self._idle.is_set():  # with 0 seconds wait_for would not look
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            return False
        return True

    def _refusal(self, limit: str, description: str, seconds: float = _RETRY_SECONDS) -> ResourceExhausted:
        self._metrics.refused(limit)
        return exhausted(limit, description, seconds)


@contextlib.contextmanager
def _counted(counter: Counter[str], client: str, amount: int = 1) -> Iterator[None]:
    counter[client] += amount
    try:
        yield
    finally:
        counter[client] -= amount
        if not counter[client]:
            del counter[client]


async def _at_most_two(requests: AsyncIterable[T]) -> list[T]:
    messages = []
    async for message in requests:
        messages.append(message)
        if len(messages) == 2:
            break
    return messages
