"""One gRPC channel to a server, and the calls on it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from masklet._transport.endpoint import Endpoint
from masklet._transport.failures import FailedCall, from_call
from masklet.errors import FailedPrecondition, MaskletError
from masklet.v1 import tracking_pb2
from masklet.v1.tracking_pb2_grpc import TrackingServiceStub

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

RunningCall = Any
"""A running stream; gRPC's own type for it is private."""


# How servers begin a message about one picture.
_ABOUT_A_FRAME = re.compile(r"(?:frame\.data: )?frame (\d+)\b")


@dataclass(frozen=True)
class TrackMethod:
    """The server's Track method, ready to be called.

    Attributes:
        call: Starts a call that sends these requests.
        target: The server, as errors name it.
        timeout: Seconds for the whole call; None for no limit.
        picture_names: The file's name of each picture of a folder, by which errors name it.
    """

    call: Callable[[Iterator[tracking_pb2.TrackRequest]], RunningCall]
    target: str
    timeout: float | None
    picture_names: Sequence[str] = ()

    def failure(self, error: grpc.RpcError, *, connected: bool) -> MaskletError:
        """What a failed call is raised as.

        Args:
            error: What gRPC raised.
            connected: The server has already answered during this call.
        """
        failed = cast("FailedCall", error)
        told = from_call(failed, target=self.target, connected=connected, timeout=self.timeout)
        match = _ABOUT_A_FRAME.match(told.message)
        if match is None or int(match[1]) >= len(self.picture_names):
            return told
        return type(told)(f"{self.picture_names[int(match[1])]}: {told.message}", violations=told.violations)


class Channel:
    """A channel that connects on first use, and again after a failure.

    Args:
        endpoint: The server.
        timeout: Seconds for a call with a single answer; None for no limit.

    Attributes:
        stub: masklet's own service.
        health: The standard health service.
    """

    def __init__(self, endpoint: Endpoint, timeout: float | None) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._channel = endpoint.channel()
        self._closed = False
        self.stub = TrackingServiceStub(self._channel)
        self.health = health_pb2_grpc.HealthStub(self._channel)

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
        return TrackMethod(
            lambda requests: self.stub.Track(requests, timeout=timeout, metadata=self._endpoint.metadata),
            str(self._endpoint),
            timeout,
            picture_names,
        )

    def ask(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Answer], request: _Request) -> _Answer:
        """Call a method and wait for its answer.

        Raises:
            MaskletError: The call failed.
        """
        self._check_open()
        try:
            return method(request, timeout=self._timeout, metadata=self._endpoint.metadata)
        except grpc.RpcError as error:
            raise self._failure(error) from error

    async def ask_async(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Answer], request: _Request) -> _Answer:
        """Do as `ask` does without blocking the event loop; cancelling the task cancels the call.

        Raises:
            MaskletError: The call failed.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake(_: object) -> None:  # on gRPC's thread, and after the loop has gone if the program was in a hurry
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        call = method.future(request, timeout=self._timeout, metadata=self._endpoint.metadata)
        call.add_done_callback(wake)
        try:
            await done.wait()
        finally:
            call.cancel()
        try:
            return call.result()
        except grpc.RpcError as error:
            raise self._failure(error) from error

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition("this client is closed; make another one")

    def _failure(self, error: grpc.RpcError) -> MaskletError:
        return from_call(cast("FailedCall", error), target=str(self._endpoint), timeout=self._timeout)
