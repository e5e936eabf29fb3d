"""A running Track call: gRPC's threads on one side, the caller's on the other, a `TrackProtocol` between them."""

from __future__ import annotations

import threading
from typing import TypeVar, cast

import grpc

from masklet._media.uploads import Upload
from masklet._protocol.resumption import how_resumed
from masklet._protocol.track import TrackProtocol
from masklet._sync.sender import RequestSender
from masklet._transport.channel import RunningCall, TrackMethod
from masklet.errors import Cancelled, MaskletError, NotFound
from masklet.v1 import tracking_pb2

_Entered = TypeVar("_Entered", bound="Stream")


class Stream:
    """What `Tracking`, `Live` and `Annotation` share: a running call, and a context manager that ends it.

    If the call breaks, and the server keeps the session, another call takes its place. The reading side sees to that.

    Args:
        method: Starts the call.
        protocol: What is said and heard.
        upload: The video, as messages that are made when they are asked for.
    """

    def __init__(self, method: TrackMethod, protocol: TrackProtocol, upload: Upload) -> None:
        self._method = method
        self._cancelled = False
        self._ended = False
        self._stopped = threading.Event()
        self._calling = threading.Lock()  # so that no call begins when the stream has been stopped
        self._is_back = True  # whether results come again since the last break
        self._begins_anew = False  # another session takes the place of one that the server does not have any more
        self._sender = RequestSender(protocol, upload)
        self._call: RunningCall = None  # for `__del__`, should the call not start
        self._call = method.call(self._sender.requests())
        self._sender.attach(self._call)
        method.ends_with_channel(self)

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
        self._stop()

    def close(self) -> None:
        """End the call and free the server. May be called twice."""
        self._ended = True
        self._stop()

    def __enter__(self: _Entered) -> _Entered:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._call is not None:
            self._stop()

    def _stop(self) -> None:
        with self._calling:
            self._stopped.set()
            self._call.cancel()
        self._leave()

    def _leave(self) -> None:
        with self._sender.changing():  # whoever closes the channel comes later, and waits for the farewell
            farewell = self._sender.protocol.leave()
            if farewell:
                self._method.leave(farewell)

    def _read(self) -> tracking_pb2.TrackResponse:
        """The next response, if need be from another call.

        Raises:
            StopIteration: There are no more.
            MaskletError: The call has failed, and no other one can go on.
        """
        while True:
            try:
                response = cast("tracking_pb2.TrackResponse", next(self._call))
            except StopIteration:
                self._sender.protocol.end_of_stream()
                raise
            except grpc.RpcError as error:
                self._go_on_after(error)
                continue
            if not self._is_back:
                self._note_return(response)
            return response

    def _go_on_after(self, error: grpc.RpcError) -> None:
        """Go on in another call.

        Raises:
            StopIteration: Everything is here.
            MaskletError: That is not possible.
        """
        if self._cancelled:
            raise Cancelled("tracking was cancelled") from None
        if self._sender.failure is not None:
            raise self._sender.failure from None
        protocol, reconnection = self._sender.protocol, self._method.reconnection
        connected = bool(self.session_id)
        was_reached = connected or reconnection.is_away  # also where the first call broke before it was answered
        is_broken = self._method.is_broken(error, connected=was_reached) and not self._stopped.is_set()
        if is_broken and protocol.finished:
            raise StopIteration
        if is_broken and not connected:
            is_broken = not self._method.needs_tls()
        failure = self._method.failure(error, connected=connected or is_broken)
        if not protocol.can_go_on or not (is_broken or reconnection.is_worth_a_try(failure)):
            if self._method.ran_out(error):
                self._leave()
            protocol.give_up()
            raise failure from error
        self._is_back = False
        if reconnection.is_away and isinstance(failure, NotFound) and protocol.can_begin_anew:
            self._begins_anew = True
            with self._sender.changing():
                protocol.begin_anew()
            self._call_again()
            return
        try:
            delay = reconnection.lost(failure, protocol.last_frame_index, has_begun=connected)
        except MaskletError as reason:
            protocol.give_up()
            raise reason from error
        self._stopped.wait(delay)
        self._call_again()

    def _call_again(self) -> None:
        with self._calling:
            if self._stopped.is_set():
                raise Cancelled("tracking was cancelled")
            requests = self._sender.requests()  # from now on the end of the older call means nothing
            with self._sender.changing():
                self._sender.protocol.detach()
            token = self._sender.protocol.resume_token
            self._call = self._method.call_again(requests, token)
            self._sender.attach(self._call)

    def _note_return(self, response: tracking_pb2.TrackResponse) -> None:
        reconnection = self._method.reconnection
        if response.HasField("session") and not self.session_id:
            reconnection.resumed(
                "rewound", None, has_begun=False
            )  # the first call broke before the server had answered it
        elif response.HasField("session") and self._begins_anew:
            self._begins_anew = False
            reconnection.resumed("rewound", self._sender.protocol.last_frame_index)
        elif response.HasField("resumed"):
            reconnection.resumed(how_resumed(response.resumed), self._sender.protocol.last_frame_index)
        elif response.number and not self._sender.protocol.is_repeating:
            reconnection.progressed()
            self._is_back = True
