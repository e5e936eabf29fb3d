"""What happens around every RPC: identity, admission, rate limits, errors, the log line, metrics.

Streaming handlers run here, and their responses go out by `context.write`. They are not given to gRPC as generators,
because gRPC does not finish a generator if the call ends while a response is sent: its `finally` blocks would run when
the garbage collector finds it, in another task.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
from grpc_status import rpc_status

from masklet.errors import Cancelled, DeadlineExceeded, MaskletError, ResourceExhausted, Unauthenticated
from masklet.v1 import image_pb2, tracking_pb2
from masklet_server.addresses import network_of
from masklet_server.budgets.message_size import RawMessage
from masklet_server.metrics import Metrics
from masklet_server.rpc import auth
from masklet_server.rpc.admission import Admission
from masklet_server.rpc.auth import current_client, current_identity
from masklet_server.rpc.receiving.connections import Account, ConnectionWatch
from masklet_server.rpc.receiving.messages import MessageKind, MessageReader, Messages
from masklet_server.rpc.status import as_masklet_error, code_name, to_status
from masklet_server.rpc.usage import Usage, current_usage
from masklet_server.tracing import NoTracer, Tracer

logger = logging.getLogger(__name__)

TRACK = "/masklet.v1.TrackingService/Track"
SEGMENT_IMAGE = "/masklet.v1.TrackingService/SegmentImage"
_REQUESTS: dict[str, MessageKind[Any]] = {
    TRACK: MessageKind(tracking_pb2.TrackRequest.FromString, tracking_pb2.TrackRequest.DESCRIPTOR),
    SEGMENT_IMAGE: MessageKind(image_pb2.SegmentImageRequest.FromString, image_pb2.SegmentImageRequest.DESCRIPTOR),
}
_HEALTH = "/grpc.health.v1.Health/"
# How often the tokens of running calls are looked at.
_TOKEN_SECONDS = 2.0
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_STREAM_UNARY = grpc.stream_unary_rpc_method_handler

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


@dataclass
class Call:
    """One RPC that runs.

    Attributes:
        method: Full name, such as "/masklet.v1.TrackingService/Track".
        context: What gRPC knows of the call.
        client: Token name, certificate subject or address.
        connection: What is known of its connection.
        identity: The same if it is proved; empty for an address.
        code: Name of the status code it ended with.
        is_session: Whether it was admitted as a Track stream.
        token: Digest of its token; None if it needs none.
        is_revoked: Its token became invalid while it ran.
        usage: What it has used.
    """

    method: str
    context: Context
    client: str
    connection: Account
    code: str = "OK"
    is_session: bool = False
    token: bytes | None = None
    identity: str = ""
    usage: Usage = field(default_factory=Usage)
    is_revoked: bool = False


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of the server.

    Args:
        callers: Who may call. The health service needs no token.
        admission: Applies limits, and refuses calls while the server stops.
        connections: Is told what comes of the bytes of each connection.
        metrics: Counts RPCs and sessions.
        tracer: Makes a span of each call of Track and SegmentImage.
    """

    def __init__(
        self,
        callers: auth.Callers,
        admission: Admission,
        connections: ConnectionWatch,
        metrics: Metrics,
        tracer: Tracer | None = None,
    ) -> None:
        self._trust_gateway = callers.trust_gateway
        self._ipv6_prefix = callers.ipv6_prefix
        self._tracer = tracer or NoTracer()
        self._connections = connections
        self._tokens = callers.tokens
        self._admission = admission
        self._metrics = metrics
        self._running: dict[asyncio.Task[Any], Call] = {}
        self._reader = MessageReader()

    def close(self) -> None:
        """End the thread that reads messages; call it when no call runs any longer."""
        self._reader.close()

    async def watch_tokens(self) -> None:
        """End the calls whose tokens are no longer valid; for ever, as a task of its own."""
        while self._tokens is not None:
            await asyncio.sleep(_TOKEN_SECONDS)
            for task, call in self._running.items():
                if call.token is not None and not call.is_revoked and not self._tokens.has(call.token):
                    call.is_revoked = True
                    task.cancel()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Called by gRPC for every RPC; returns None if there is no such method, and gRPC answers that itself."""
        handler = await continuation(handler_call_details)
        return None if handler is None else self._wrapped(handler, handler_call_details.method)

    def _wrapped(self, handler: Handler, method: str) -> Handler:
        """The handler inside everything else. To gRPC it always takes a stream of requests.

        gRPC would read the message of a unary request before it calls the handler: before the token is looked at,
        whatever the number of such requests, and for as long as the client takes.
        """
        # One of the four is set. In gRPC's types they are synchronous.
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        # A gateway passes messages on as they are; the server behind it checks them.
        reads = method in _REQUESTS and handler.request_deserializer is not RawMessage

        async def run(requests: Any, context: Context) -> Any:
            async def answer(call: Call) -> Any:
                incoming = requests
                if reads:
                    incoming = Messages(requests, functools.partial(self._read, call))
                if handler.request_streaming:
                    return await _run_to_end(behaviour(_Metered(incoming, self._meter, call), context), context)
                if method != SEGMENT_IMAGE:
                    request = await self._admission.receive_small(call.client, incoming)
                    return await _run_to_end(behaviour(request, context), context)
                async with self._admission.turn(call.client):
                    request = await self._admission.receive(incoming)
                    await self._meter(call, request)
                    await self._send(call, await _run_to_end(behaviour(request, context), context))
                return None

            return await self._surround(self._call(method, context), answer)

        sends = handler.response_streaming or method == SEGMENT_IMAGE  # one response or many: the bytes are the same
        make = grpc.stream_stream_rpc_method_handler if sends else _STREAM_UNARY
        # gRPC would make messages of bytes on the event loop.
        return make(run, None if reads else handler.request_deserializer, handler.response_serializer)

    async def _read(self, call: Call, data: bytes) -> Any:
        self._connections.message(call.connection)
        return await self._reader.read(data, _REQUESTS[call.method], call.client)

    async def _send(self, call: Call, response: Any) -> None:
        """Send the only response of a call, which may be large, while its turn lasts.

        Raises:
            DeadlineExceeded: The client does not read it in time.
        """
        try:
            await self._admission.in_time(call.context.write(response), "the client has not read the response")
        except DeadlineExceeded:
            size = len(response) if isinstance(response, bytes) else response.ByteSize()
            self._connections.unread(call.connection, size)  # gRPC keeps it with the connection
            raise

    def _call(self, method: str, context: Context) -> Call:
        connection = self._connections.account(context.peer())
        if self._trust_gateway:
            client, identity = auth.told_by_gateway(context.invocation_metadata() or ())
            if client:
                return Call(method, context, client, connection, identity=identity)
        subject = auth.certificate_subject(context.auth_context() or {}) or ""
        client = subject or network_of(auth.address_of(context.peer()), self._ipv6_prefix)
        return Call(method, context, client, connection, identity=subject)

    async def _surround(self, call: Call, answer: Callable[[Call], Awaitable[Any]]) -> Any:
        context = call.context
        started = time.perf_counter()
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = call
        current_usage.set(call.usage)
        try:
            with self._span(call), contextlib.ExitStack() as stack:
                self._admit(call, stack)
                current_client.set(call.client)
                current_identity.set(call.identity)
                result = await answer(call)
            call.code = code_name(context.code())
            return result
        except asyncio.CancelledError:
            if not call.is_revoked:
                # gRPC cancels the task both when the client goes away and when its deadline passes.
                remaining = context.time_remaining()
                call.code = "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"
                raise
            failure = _status_of(Unauthenticated("the token was revoked while the call ran; use another token"))
            call.code = failure.code.name
        except grpc.aio.AbortError:
            call.code = code_name(context.code())
            raise
        except Exception as error:
            if isinstance(error, grpc.aio.BaseError) and context.cancelled():
                call.code = "CANCELLED"  # the client went away during a write
                raise
            if isinstance(error, grpc.aio.InternalError):
                # The same, but gRPC's write has failed before the call is cancelled; or `asyncio.wait_for` raises this
                # error in place of a cancellation that comes at the same time.
                failure = _status_of(Cancelled("the connection of this call broke"))
            else:
                failure = _status_of(error)
            call.code = failure.code.name
        finally:
            del self._running[task]
            self._record(call, time.perf_counter() - started)
        # Not while the error is handled: gRPC keeps what `abort` raises until the next call comes. It would refer to
        # the error, the error to the frames of the session, and these to all of its memory and temporary files.
        return await context.abort(failure.code, failure.details, failure.trailing_metadata)

    def _admit(self, call: Call, stack: contextlib.ExitStack) -> None:
        if call.method.startswith(_HEALTH):
            return
        if self._tokens is not None:
            try:
                bearer = auth.require_token(self._tokens, call.context.invocation_metadata() or ())
            except Exception:
                self._metrics.refused("token")
                raise
            call.client, call.token = bearer.name, bearer.digest
            call.identity = bearer.name
        stack.enter_context(self._connections.admitted(call.connection))
        self._admission.check_rate(call.client)
        if call.method in (TRACK, SEGMENT_IMAGE):
            stack.enter_context(self._connections.call(call.connection, call.usage))
            stack.enter_context(self._admission.work())
        if call.method == TRACK:
            stack.enter_context(self._admission.session(call.client))
            self._metrics.session_started()
            call.is_session = True

    @contextlib.contextmanager
    def _span(self, call: Call) -> Iterator[None]:
        """A span around a call that computes; errors are the rare events in it."""
        if call.method not in (TRACK, SEGMENT_IMAGE):
            yield
            return
        with self._tracer.span(call.method.lstrip("/"), call.context.invocation_metadata() or ()) as span:
            code = "OK"
            try:
                yield
            except MaskletError as error:
                code = _NAMES[type(error).code]
                limits = {f"limit.{i}": one.field for i, one in enumerate(error.violations)}
                span.event("refused" if isinstance(error, ResourceExhausted) else "failed", {"code": code, **limits})
                raise
            except asyncio.CancelledError:
                code = "UNAUTHENTICATED" if call.is_revoked else "CANCELLED"
                raise
            except BaseException:
                code = "INTERNAL"
                raise
            finally:
                span.ended(code, {"client": call.client, **call.usage.fields()})

    async def _meter(self, call: Call, request: Any) -> None:
        if call.method in (TRACK, SEGMENT_IMAGE):
            self._connections.message(call.connection)
            size = request.ByteSize()
            call.usage.received(request, size)
            self._metrics.uploaded(size)
            await self._admission.uploads.take(call.client, size)

    def _record(self, call: Call, seconds: float) -> None:
        method = call.method.lstrip("/")
        self._metrics.rpc_ended(method, call.code, seconds)
        if call.is_session:
            # A client that comes back, or says in a further call that it does not, must not be counted twice.
            self._metrics.session_ended("PARKED" if call.usage.is_parked else call.code)
        level = logging.DEBUG if call.method.startswith(_HEALTH) else logging.INFO
        fields = {"method": method, "client": call.client, "code": call.code, "seconds": round(seconds, 4)}
        if call.method in (TRACK, SEGMENT_IMAGE):
            fields.update(call.usage.fields())
        logger.log(level, "rpc", extra=fields)


class _Metered:
    """Requests of a stream. Each is counted, and waits if the client sends faster than its rate allows."""

    def __init__(self, requests: AsyncIterable[Any], meter: Callable[[Call, Any], Awaitable[None]], call: Call) -> None:
        self._requests = aiter(requests)
        self._meter = meter
        self._call = call

    def __aiter__(self) -> _Metered:
        return self

    async def __anext__(self) -> Any:
        request = await anext(self._requests)
        await self._meter(self._call, request)
        return request


async def _run_to_end(result: Any, context: Context) -> Any:
    """Run a handler to its end, whether it is a coroutine or a generator of responses."""
    if not isinstance(result, AsyncIterator):
        return await result
    async with contextlib.aclosing(result) as responses:  # type: ignore[type-var]  # an async generator
        async for response in responses:
            await context.write(response)
    return None


def _status_of(error: Exception) -> Any:
    """The code, details and trailing metadata with which a call ends because of the error."""
    return rpc_status.to_status(to_status(as_masklet_error(error)))
