"""One gRPC channel to a server, and the calls on it."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from masklet._protocol.options import SessionOptions
from masklet._transport.direct import DirectWorkers, Place
from masklet._transport.endpoint import Endpoint
from masklet._transport.failures import FailedCall, from_call, is_broken, needs_tls, nobody_listens, ran_out
from masklet._transport.reconnection import Reconnection
from masklet._transport.starting import CONNECT_SECONDS, StartingServer
from masklet.errors import FailedPrecondition, MaskletError
from masklet.v1 import tracking_pb2
from masklet.v1.tracking_pb2_grpc import TrackingServiceStub

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

RunningCall = Any
"""A running stream; gRPC's own type for it is private."""


LEAVE_SECONDS = 10.0
"""Seconds for telling a server that a session will not be resumed."""
CLOSE_SECONDS = 3.0
"""Seconds of these that closing a channel waits for."""

# How servers begin a message about one picture.
_ABOUT_A_FRAME = re.compile(r"(?:frame\.data: )?frame (\d+)\b")


class Cancellable(Protocol):
    """A running stream that can be ended."""

    def cancel(self) -> None:
        """End the stream, from any thread."""


class TrackMethod:
    """The server's Track method, ready to be called.

    Args:
        channel: The channel to the server.
        options: What the caller wants of the call.
        picture_names: The file's name of each picture of a folder, by which errors name it.

    Attributes:
        reconnection: When to call again after a call has broken.
    """

    def __init__(self, channel: Channel, options: SessionOptions, picture_names: Sequence[str] = ()) -> None:
        self._channel = channel
        self._timeout = timeout = options.get("timeout")
        self.reconnection = Reconnection.of(options)
        self._picture_names = picture_names
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._gave_up = threading.Event()
        self._model = options.get("model") or ""
        self._place: Place | None = None

    def call(self, requests: Iterator[tracking_pb2.TrackRequest]) -> RunningCall:
        """Start a call that sends these requests; if nobody listens yet, it begins when somebody does."""
        server = self._channel.server
        waits = server.is_awaited()
        stub = self._channel.stub if waits else self._stub("")
        running = stub.Track(
            requests, timeout=self._timeout, metadata=self._channel.endpoint.metadata, wait_for_ready=waits
        )
        self._ends_with(running)
        if waits:
            # Not on the caller's thread, which may be that of an event loop.
            threading.Thread(target=self._wait, args=(running,), name="masklet-connect", daemon=True).start()
        return running

    def call_again(self, requests: Iterator[tracking_pb2.TrackRequest], resume_token: str = "") -> RunningCall:
        """Start a call that takes the place of one that has broken; it fails at once where nobody listens.

        Args:
            requests: What it sends.
            resume_token: Names the session, so that a gateway finds the worker that has it.
        """
        left = None if self._deadline is None else max(0.001, self._deadline - time.monotonic())
        running = self._stub(resume_token).Track(requests, timeout=left, metadata=self._channel.endpoint.metadata)
        self._ends_with(running)
        return running

    def _stub(self, resume_token: str) -> TrackingServiceStub:
        """Masklet's service where the next call goes: at a worker, if the client goes there itself."""
        if self._place is not None:
            self._place.leave()
        workers = self._channel.workers
        self._place = None if workers is None else workers.place(self._model, resume_token)
        return self._channel.stub if self._place is None else self._place.stub

    def _ends_with(self, running: RunningCall) -> None:
        """Give the worker's place back when the call has ended; and end the call when the worker is lost."""
        if self._place is not None:
            self._place.when_lost(running.cancel)
            if not running.add_callback(self._place.leave):
                self._place.leave()

    def ends_with_channel(self, stream: Cancellable) -> None:
        """Have the channel cancel a stream before it closes."""
        self._channel.add(stream)

    def leave(self, farewell: Sequence[tracking_pb2.TrackRequest]) -> None:
        """Tell the server in a call of its own, and in the background, that nobody will resume the session.

        Args:
            farewell: What to send.
        """
        self._channel.leave(farewell)

    def needs_tls(self) -> bool:
        """Whether the server speaks TLS and this client does not; asks the server."""
        return self._channel.needs_tls()

    @staticmethod
    def is_broken(error: grpc.RpcError, *, connected: bool) -> bool:
        """Whether another call may go on with the session of one that has failed.

        Args:
            error: What gRPC raised.
            connected: The server has already answered during the session.
        """
        return is_broken(cast("FailedCall", error), connected=connected)

    @staticmethod
    def ran_out(error: grpc.RpcError) -> bool:
        """Whether the caller's own `timeout` has ended the call, so that the server may still keep the session."""
        return ran_out(cast("FailedCall", error))

    def failure(self, error: grpc.RpcError, *, connected: bool) -> MaskletError:
        """What a failed call is raised as.

        Args:
            error: What gRPC raised.
            connected: The server has already answered during this call.
        """
        if self._gave_up.is_set():
            return nobody_listens(str(self._channel), self._channel.connect_timeout)
        told = self._channel.failure(error, connected=connected, timeout=self._timeout)
        match = _ABOUT_A_FRAME.match(told.message)
        if match is None or int(match[1]) >= len(self._picture_names):
            return told
        return type(told)(f"{self._picture_names[int(match[1])]}: {told.message}", violations=told.violations)

    def _wait(self, running: RunningCall) -> None:
        if not self._channel.server.wait():
            self._gave_up.set()
            running.cancel()


class Channel:
    """A channel that connects on first use, and again after a failure.

    Args:
        endpoint: The server.
        timeout: Seconds for a call with a single answer; None for no limit.
        connect_timeout: Seconds to wait for a server that does not listen yet.
        direct: The server is a gateway, and streams go to its workers themselves.

    Attributes:
        endpoint: The server.
        connect_timeout: Seconds to wait for a server that does not listen yet.
        server: Tells whether the server listens.
        stub: masklet's own service.
        health: The standard health service.
        workers: Those of a gateway, if streams go there themselves.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: float | None,
        connect_timeout: float = CONNECT_SECONDS,
        *,
        direct: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.connect_timeout = connect_timeout
        self.server = StartingServer(endpoint.target, local=endpoint.local, seconds=connect_timeout)
        self._timeout = timeout
        self._channel = endpoint.channel()
        self.workers = DirectWorkers(endpoint, self._channel) if direct else None
        self._closed = False
        self._streams: weakref.WeakSet[Cancellable] = weakref.WeakSet()
        self._adding = threading.Lock()
        self._leaving: set[threading.Event] = set()  # each is set once the server was told
        self.stub = TrackingServiceStub(self._channel)
        self.health = health_pb2_grpc.HealthStub(self._channel)

    def __str__(self) -> str:
        return str(self.endpoint)

    def close(self) -> None:
        """End every running call, and the connection."""
        with self._adding:
            streams = tuple(self._streams)
        for stream in streams:
            stream.cancel()
        self._closed = True
        deadline = time.monotonic() + CLOSE_SECONDS
        for told in tuple(self._leaving):
            told.wait(max(0.0, deadline - time.monotonic()))
        if self.workers is not None:
            self.workers.close()
        self._channel.close()

    def add(self, stream: Cancellable) -> None:
        """Cancel a stream when this is closed."""
        with self._adding:
            self._streams.add(stream)

    def leave(self, farewell: Sequence[tracking_pb2.TrackRequest]) -> None:
        """Send messages in a Track call of their own, on a thread that `close` waits for a moment.

        Args:
            farewell: What to send.
        """
        if self._closed:
            return
        told = threading.Event()
        self._leaving.add(told)  # before the thread begins, so that `close` on another thread waits for it
        thread = threading.Thread(target=self._leave, args=(farewell, told), name="masklet-leave", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, and begins no more threads
            told.set()
            self._leaving.discard(told)

    def _leave(self, farewell: Sequence[tracking_pb2.TrackRequest], told: threading.Event) -> None:
        try:
            for _ in self.stub.Track(iter(farewell), timeout=LEAVE_SECONDS, metadata=self.endpoint.metadata):
                pass
        except grpc.RpcError:
            pass  # it ends with CANCELLED; a server that did not hear it waits for as long as it waits for anybody
        except ValueError:
            pass  # gRPC's word for a channel that was closed meanwhile
        finally:
            told.set()
            self._leaving.discard(told)

    def track_method(self, options: SessionOptions, picture_names: Sequence[str] = ()) -> TrackMethod:
        """The server's Track method.

        Args:
            options: What the caller wants of the call.
            picture_names: The file's name of each picture of a folder.

        Raises:
            FailedPrecondition: The client is closed.
        """
        self._check_open()
        return TrackMethod(self, options, picture_names)

    def ask(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Answer], request: _Request) -> _Answer:
        """Call a method and wait for its answer.

        Raises:
            MaskletError: The call failed.
        """
        self._check_open()
        if self.server.is_awaited() and not self.server.wait():
            raise nobody_listens(str(self), self.connect_timeout)
        try:
            return method(request, timeout=self._timeout, metadata=self.endpoint.metadata)
        except grpc.RpcError as error:
            raise self.failure(error, timeout=self._timeout) from error

    async def ask_async(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Answer], request: _Request) -> _Answer:
        """Do as `ask` does without blocking the event loop; cancelling the task cancels the call.

        Raises:
            MaskletError: The call failed.
        """
        self._check_open()
        if self.server.is_awaited() and not await self.server.wait_async():
            raise nobody_listens(str(self), self.connect_timeout)
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake(_: object) -> None:  # on gRPC's thread, and after the loop has gone if the program was in a hurry
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        call = method.future(request, timeout=self._timeout, metadata=self.endpoint.metadata)
        call.add_done_callback(wake)
        try:
            await done.wait()
        finally:
            call.cancel()
        try:
            return call.result()
        except grpc.RpcError as error:
            raise await asyncio.to_thread(self.failure, error, timeout=self._timeout) from error

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition("this client is closed; make another one")

    def needs_tls(self) -> bool:
        """Whether the server speaks TLS and this client does not; asks the server."""
        return self.endpoint.credentials is None and self.server.speaks_tls()

    def failure(self, error: grpc.RpcError, *, connected: bool = False, timeout: float | None) -> MaskletError:
        """What a failed call is raised as. It may ask the server once more what it speaks.

        Args:
            error: What gRPC raised.
            connected: The server has already answered during this call.
            timeout: The limit under which the call ran, in seconds.
        """
        failed = cast("FailedCall", error)
        unreached = failed.code() is grpc.StatusCode.UNAVAILABLE and not connected and not failed.trailing_metadata()
        if unreached and self.needs_tls():
            return needs_tls(str(self))
        return from_call(failed, target=str(self), connected=connected, timeout=timeout)
