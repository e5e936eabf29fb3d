"""A running Track call: gRPC's threads on one side, the caller's on the other, a `TrackProtocol` between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

import grpc

from masklet._protocol.track import TrackProtocol
from masklet._sync.sender import RequestSender
from masklet._transport.channel import RunningCall, TrackMethod
from masklet.errors import Cancelled
from masklet.v1 import tracking_pb2

_Entered = TypeVar("_Entered", bound="Stream")


class Stream:
    """What `Tracking`, `Live` and `Annotation` share: a running call, and a context manager that ends it.

    Args:
        method: Starts the call.
        protocol: What is said and heard.
        parts: The video, as messages that are made when they are asked for.
    """

    def __init__(
        self, method: TrackMethod, protocol: TrackProtocol, parts: Iterator[tracking_pb2.TrackRequest]
    ) -> None:
        self._method = method
        self._cancelled = False
        self._ended = False
        self._sender = RequestSender(protocol, parts)
        self._call: RunningCall = None  # for `__del__`, should the call not start
        self._call = method.call(self._sender.requests())
        self._sender.attach(self._call)

    @property
    def session_id(self) -> str:
        """The server's name for this session, as in its log; empty until the first result is here."""
        return self._sender.protocol.session_id

    @property
    def model(self) -> str:
        """The model in use; empty until the first result is here."""
        return self._sender.protocol.model

    def cancel(self) -> None:
        """End the call, from any thread. Whoever waits for the server gets `Cancelled` raised."""
        self._cancelled = True
        self._call.cancel()

    def close(self) -> None:
        """End the call and free the server. May be called twice."""
        self._ended = True
        self._call.cancel()

    def __enter__(self: _Entered) -> _Entered:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _read(self) -> tracking_pb2.TrackResponse:
        try:
            return cast("tracking_pb2.TrackResponse", next(self._call))
        except StopIteration:
            self._sender.protocol.end_of_stream()
            raise
        except grpc.RpcError as error:
            if self._cancelled:
                raise Cancelled("tracking was cancelled") from None
            if self._sender.failure is not None:
                raise self._sender.failure from None
            raise self._method.failure(error, connected=bool(self.session_id)) from error
