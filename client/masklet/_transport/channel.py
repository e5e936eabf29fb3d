"""One gRPC channel to a server, and the calls on it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from masklet._transport.endpoint import Endpoint
from masklet._transport.failures import FailedCall, from_call, needs_tls, nobody_listens
from masklet._transport.starting import CONNECT_SECONDS, StartingServer
from masklet.errors import FailedPrecondition, MaskletError
from masklet.v1 import tracking_pb2
from masklet.v1.tracking_pb2_grpc import TrackingServiceStub

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

RunningCall = Any
"""A running stream; gRPC's own type for it is private."""


# How servers begin a message about one picture.
_ABOUT_A_FRAME = re.compile(r"(?:frame\.data: )?frame (\d+)\b")


class TrackMethod:
    """The server's Track method, ready to be called.

    Args:
        channel: The channel to the server.
        timeout: Seconds for the whole call; None for no limit.
        picture_names: The file's name of each picture of a folder, by which errors name it.
    """

    def __init__(self, channel: Channel, timeout: float | None, picture_names: Sequence[str] = ()) -> None:
        self._channel = channel
        self._timeout = timeout
        self._picture_names = picture_names
        self._gave_up = threading.Event()

    def call(self, requests: Iterator[tracking_pb2.TrackRequest]) -> RunningCall:
        """Start a call that sends these requests; if nobody listens yet, it begins when somebody does."""
        server = self._channel.server
        waits = server.is_awaited()
        running = self._channel.stub.Track(
            requests, timeout=self._timeout, metadata=self._channel.endpoint.metadata, wait_for_ready=waits
        )
        if waits:
            # Not on the caller's thread, which may be that of an event loop.
            threading.Thread(target=self._wait, args=(running,), name="masklet-connect", daemon=True).start()
        return running

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

    Attributes:
        endpoint: The server.
        connect_timeout: Seconds to wait for a server that does not listen yet.
        server: Tells whether the server listens.
        stub: masklet's own service.
        health: The standard health service.
    """

    def __init__(self, endpoint: Endpoint, timeout: float | None, connect_timeout: float = CONNECT_SECONDS) -> None:
        self.endpoint = endpoint
        self.connect_timeout = connect_timeout
        self.server = StartingServer(endpoint.target, local=endpoint.local, seconds=connect_timeout)
        self._timeout = timeout
        self._channel = endpoint.channel()
        self._closed = False
        self.stub = TrackingServiceStub(self._channel)
        self.health = health_pb2_grpc.HealthStub(self._channel)

    def __str__(self) -> str:
        return str(self.endpoint)

    def close(self) -> None:
        """End every running call, and the connection."""
        self._closed = True
        self._channel.close()

    def track_method(self, timeout: float | None, picture_names: Sequence[str] = ()) -> TrackMethod:
        """The server's Track method.

        Args:
            timeout: Seconds for a whole call; None for no limit.
            picture_names: The file's name of each picture of a folder.

        Raises:
            FailedPrecondition: The client is closed.
        """
        self._check_open()
        return TrackMethod(self, timeout, picture_names)

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

    def failure(self, error: grpc.RpcError, *, connected: bool = False, timeout: float | None) -> MaskletError:
        """What a failed call is raised as. It may ask the server once more what it speaks.

        Args:
            error: What gRPC raised.
            connected: The server has already answered during this call.
            timeout: The limit under which the call ran, in seconds.
        """
        failed = cast("FailedCall", error)
        unreached = failed.code() is grpc.StatusCode.UNAVAILABLE and not connected and not failed.trailing_metadata()
        if unreached and self.endpoint.credentials is None and self.server.speaks_tls():
            return needs_tls(str(self))
        return from_call(failed, target=str(self), connected=connected, timeout=timeout)
