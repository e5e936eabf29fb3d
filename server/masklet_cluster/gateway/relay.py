"""Passes one call on to a worker, and its answers back, as bytes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from masklet.errors import Unavailable
from masklet_cluster.placement.placement import Lease
from masklet_server.budgets.message_size import RawMessage
from masklet_server.rpc.auth import CLIENT_KEY, IDENTITY_KEY
from masklet_server.rpc.usage import count_results

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = tuple[tuple[str, str | bytes], ...]
Code = grpc.StatusCode
Connectivity = grpc.ChannelConnectivity

DETAILS_KEY = "grpc-status-details-bin"
# The first byte of a response with a frame result: field 4 of TrackResponse.
_FRAME_RESULT = b"\x22"
# What a connection makes of a worker that dies. A worker itself ends calls with details.
_OF_THE_NETWORK = (Code.UNAVAILABLE, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN)
# A worker that ends a call with these before it has said anything may be full, or may drain: another one may take it.
_MAY_FIT_ELSEWHERE = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
# A worker to which there is no connection for so long is not waited for.
_CONNECT_SECONDS = 3.0
_LOOK_SECONDS = 0.005
# Metadata that belongs to one connection, or that only a gateway may send.
_NOT_PASSED_ON = ("user-agent", "te", "content-type", "grpc-", ":", CLIENT_KEY, IDENTITY_KEY)


@dataclass(frozen=True)
class Ending:
    """How a worker has ended a call.

    Attributes:
        code: The status code.
        details: The status message.
        trailing: The trailing metadata, with `google.rpc.Status` in it.
    """

    code: grpc.StatusCode
    details: str
    trailing: Metadata

    @property
    def is_of_the_network(self) -> bool:
        """Whether the connection has ended the call, and not the worker."""
        return self.code in _OF_THE_NETWORK and DETAILS_KEY not in dict(self.trailing)

    @property
    def may_fit_elsewhere(self) -> bool:
        """Whether another worker may take the call, if this one has not said anything yet."""
        return self.code in _MAY_FIT_ELSEWHERE or self.is_of_the_network

    async def tell(self, context: Context) -> None:
        """End the gateway's own call in the same way.

        Raises:
            AbortError: gRPC's, unless the status is OK.
        """
        if self.code is Code.OK:
            context.set_trailing_metadata(self.trailing)
            context.set_details(self.details)
            return
        await context.abort(self.code, self.details, self.trailing)


@dataclass(frozen=True)
class Calling:
    """Which method is called, and what goes with each call of it.

    Attributes:
        method: The full name, such as "/masklet.v1.TrackingService/Track".
        metadata: For the worker.
        timeout: Seconds that are left; None: no limit.
    """

    method: str
    metadata: Metadata
    timeout: float | None


def passed_on(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """The metadata of a call that concerns the other side, too."""
    return tuple((key, value) for key, value in metadata if not key.startswith(_NOT_PASSED_ON) or key == DETAILS_KEY)


async def ending_of(call: Any) -> Ending:
    """How a call to a worker has ended."""
    return Ending(await call.code(), await call.details() or "", passed_on(await call.trailing_metadata() or ()))


async def write(call: Any, message: bytes) -> None:
    """Write a message to a call of grpc.aio, as `call.write` does, but without harm to what the other side has said.

    Where a call ends while it is written to, `call.write` (grpc/aio/_call.py, `_write`) puts "Internal error from Core"
    in the place of the status, and drops the answers that were not read yet.

    Args:
        call: A call with a stream of requests.
        message: The serialized message.

    Raises:
        AioRpcError: The call ended before it was connected.
        InternalError: grpc.aio's: the call has ended. Reading says how.
    """
    await call.wait_for_connection()
    await call._cython_call.send_serialized_message(message)  # noqa: SLF001 - no public way leaves the status alone


def lost(lease: Lease, ending: Ending) -> Unavailable:
    """The error of a call whose worker was lost. Clients are not told addresses, which gRPC's own words may have."""
    logger.info("worker %s was lost during a call: %s", lease.name, ending.details)
    why = "it does not answer" if lease.lost.is_set else "there is no connection to it"
    return Unavailable(
        f"the worker of this call was lost ({why}); resume the session, or send the request again",
        retry_after_seconds=0.1,
    )


async def connected(lease: Lease) -> Ending | None:
    """Wait for the connection to a worker; returns how a call would end, where there is none.

    A call that begins while its channel connects may wait for ever: gRPC's own wait has no bound.
    """
    deadline = time.monotonic() + _CONNECT_SECONDS
    while (state := lease.channel.get_state(try_to_connect=True)) is not Connectivity.READY:
        if state is Connectivity.TRANSIENT_FAILURE or lease.lost.is_set:
            return Ending(Code.UNAVAILABLE, "it cannot be reached", ())
        if time.monotonic() > deadline:
            return Ending(Code.UNAVAILABLE, f"no connection to it within {_CONNECT_SECONDS:g} s", ())
        await asyncio.sleep(_LOOK_SECONDS)  # waiting for a change of the state cannot be cancelled
    return None


class StreamRelay:
    """Passes a stream on to one worker.

    Nothing is read ahead: a message is read from one side when the other side's connection has taken the last one.

    Args:
        calling: What is called.
        lease: The worker's place.
    """

    def __init__(self, calling: Calling, lease: Lease) -> None:
        self._lease = lease
        self._call: Any = lease.channel.stream_stream(calling.method)(
            metadata=calling.metadata, timeout=calling.timeout
        )
        self._forget = lease.lost.call(self._call.cancel)
        self._is_refused = False

    async def begin(self, first: Sequence[RawMessage]) -> bytes | Ending:
        """Send the first message, if there is one, and wait for the first answer, or for how the call ends."""
        try:
            await self._begin(first)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            return Ending(Code.UNAVAILABLE, f"no connection to it within {_CONNECT_SECONDS:g} s", ())
        except asyncio.CancelledError:
            if not self._lease.lost.is_set:
                raise  # the client has left
        return await self._next()

    async def _begin(self, first: Sequence[RawMessage]) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            await asyncio.wait_for(self._call.wait_for_connection(), _CONNECT_SECONDS)
            for message in first:
                await write(self._call, message.data)
            if not first:
                await self._call.done_writing()

    async def run(self, answer: bytes, requests: AsyncIterator[RawMessage], context: Context) -> Ending:
        """Pass on the first answer and everything else, in both directions.

        Args:
            answer: What `begin` returned.
            requests: The client's further messages.
            context: The client's call.

        Returns:
            How the worker has ended the call.
        """
        await context.send_initial_metadata(passed_on(await self._call.initial_metadata() or ()))
        sending = asyncio.create_task(self._send(requests))
        sending.add_done_callback(self._has_sent)
        try:
            message: bytes | Ending = answer
            while not isinstance(message, Ending):
                await context.write(message)
                if message[:1] == _FRAME_RESULT:
                    count_results(frames=1)
                message = await self._next()
        finally:
            sending.cancel()
            (failure,) = await asyncio.gather(sending, return_exceptions=True)
        if isinstance(failure, Exception):
            raise failure
        return message

    def close(self) -> None:
        """End the call to the worker, if it runs still."""
        self._forget()
        self._call.cancel()

    async def _next(self) -> bytes | Ending:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError:
            message = grpc.aio.EOF
        except asyncio.CancelledError:
            if not (self._lease.lost.is_set or self._is_refused):
                raise  # the client has left
            message = grpc.aio.EOF
        return await ending_of(self._call) if message is grpc.aio.EOF else message

    async def _send(self, requests: AsyncIterator[RawMessage]) -> None:
        async for request in requests:
            with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.InternalError):  # the worker ended the call
                await write(self._call, request.data)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    def _has_sent(self, sending: asyncio.Task[None]) -> None:
        if not sending.cancelled() and sending.exception() is not None:
            # A client that broke a rule is told so, and gets no further answers.
            self._is_refused = True
            self._call.cancel()


async def ask(calling: Calling, lease: Lease, request: bytes) -> tuple[bytes | None, Metadata, Ending]:
    """Pass a request with a single answer on to a worker.

    Returns:
        The answer, None if there is none; the initial metadata; how the call ended.
    """
    if (failed := await connected(lease)) is not None:
        return None, (), failed
    method: Any = lease.channel.unary_unary(calling.method)
    call = method(request, metadata=calling.metadata, timeout=calling.timeout)
    forget = lease.lost.call(call.cancel)
    try:
        answer: bytes | None = await call
    except grpc.aio.AioRpcError:
        answer = None
    except asyncio.CancelledError:
        if not lease.lost.is_set:
            raise
        return None, (), Ending(Code.UNAVAILABLE, "the worker does not answer", ())
    finally:
        forget()
        call.cancel()
    return answer, passed_on(await call.initial_metadata() or ()), await ending_of(call)
