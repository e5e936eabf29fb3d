"""A running track call: gRPC's threads on one side, the caller's loop on the other, `TrackProtocol` between them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import grpc

from masklet import _status
from masklet._protocol import Step, TrackProtocol
from masklet._results import FrameResult, PromptResult, VideoInfo
from masklet.errors import Cancelled, MaskletError
from masklet.prompts import Prompt
from masklet.v1 import tracking_pb2

OnPrompt = Callable[[PromptResult], None]
OnError = Callable[[MaskletError], None]
_Call = Any  # grpc's own type for a running stream is private
_Entered = TypeVar("_Entered", bound="Stream")
StartCall = Callable[[Iterator[tracking_pb2.TrackRequest]], _Call]


class Stream:
    """A running Track call, without what goes to and fro: what `Tracking` and `Annotation` share."""

    def __init__(
        self,
        start: StartCall,
        protocol: TrackProtocol,
        parts: Iterator[tracking_pb2.TrackRequest],
        *,
        target: str,
        timeout: float | None,
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._cancelled = False
        self._ended = False
        self._sender = _Sender(protocol, parts)
        self._call: _Call = None  # for `__del__`, should the call not start
        self._call = start(self._sender.requests())
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
        """End the call from any thread; whoever waits for the server gets `Cancelled` raised."""
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
            raise _status.from_call(
                cast("_status.FailedCall", error),
                target=self._target,
                connected=bool(self.session_id),
                timeout=self._timeout,
            ) from error


class Tracking(Stream, Iterator[FrameResult]):
    """A running `Client.track`: an iterator over frames, and a context manager that ends the call."""

    def __init__(
        self,
        start: StartCall,
        protocol: TrackProtocol,
        parts: Iterator[tracking_pb2.TrackRequest],
        *,
        target: str,
        timeout: float | None,
        on_prompt: OnPrompt | None,
        on_error: OnError | None,
    ) -> None:
        self._on_prompt, self._on_error = on_prompt, on_error
        super().__init__(start, protocol, parts, target=target, timeout=timeout)

    @property
    def video(self) -> VideoInfo | None:
        """What the video's header says; None until the first result is here."""
        return self._sender.protocol.video

    def add_prompt(self, prompt: Prompt) -> None:
        """Prompt while the video runs; from any thread.

        On a frame that was tracked already (of other videos than files: within the correction window) the object is
        corrected: the frame and those after it come once more, in order, with the corrected objects alone and a higher
        `revision`.
        """
        with self._sender.changing():
            self._sender.protocol.add_prompt(prompt)

    def remove_object(self, object_id: int) -> None:
        """Stop following an object from the next frame to be tracked; from any thread."""
        with self._sender.changing():
            self._sender.protocol.remove_object(object_id)

    def clear_prompts(self, object_id: int, frame_index: int) -> None:
        """Take back what was said of an object on a frame, if it was not applied yet; from any thread."""
        with self._sender.changing():
            self._sender.protocol.clear_prompts(object_id, frame_index)

    def __iter__(self) -> Tracking:
        return self

    def __next__(self) -> FrameResult:
        if self._ended:
            raise StopIteration
        try:
            return self._next_frame()
        except BaseException:
            self.close()
            raise

    def _next_frame(self) -> FrameResult:
        with self._sender.changing():
            self._sender.protocol.acknowledge()
        while True:
            response = self._read()
            with self._sender.changing():
                event = self._sender.protocol.receive(response)
            if isinstance(event, FrameResult):
                return event
            if event is not None:
                self._pass_on(event)

    def _pass_on(self, event: PromptResult | MaskletError) -> None:
        if isinstance(event, PromptResult):
            if self._on_prompt is not None:
                self._on_prompt(event)
        elif self._on_error is None:
            raise event
        else:
            self._on_error(event)


class _Sender:
    """Feeds gRPC's sending thread; holds no reference to `Tracking`, which thus ends when its user drops it.

    Attributes:
        protocol: What is said and heard; used under `changed` alone.
        failure: What the video's source raised, which the reading side raises again.
    """

    def __init__(self, protocol: TrackProtocol, parts: Iterator[tracking_pb2.TrackRequest]) -> None:
        self.protocol = protocol
        self.failure: Exception | None = None
        self.changed = threading.Condition()
        self._parts = parts
        self._call: _Call = None

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """The protocol is for the caller alone within; whoever waits for something to send then looks again."""
        with self.changed:
            yield
            self.changed.notify_all()

    def attach(self, call: _Call) -> None:
        """Learn of the call that the requests go to; they wait for it."""
        if not call.add_callback(self._close):
            self._close()
        with self.changing():
            self._call = call

    def requests(self) -> Iterator[tracking_pb2.TrackRequest]:
        """What gRPC sends; runs on gRPC's thread, one message at a time as flow control allows."""
        with self.changed:
            self.changed.wait_for(lambda: self._call is not None)
        try:
            while (step := self._next_step()) is not Step.END:
                if isinstance(step, Step):
                    self._fetch_part()
                else:
                    yield step
        except Exception as error:  # noqa: BLE001 - the source's own error, raised again by the reading side
            self.failure = error
            self._call.cancel()

    def _next_step(self) -> tracking_pb2.TrackRequest | Step:
        with self.changed:
            while (step := self.protocol.next_request()) is Step.WAIT:
                self.changed.wait()
            self.changed.notify_all()  # there may be room now for what was not taken yet
            return step

    def _fetch_part(self) -> None:
        part = next(self._parts, None)  # may take long: not under the lock
        with self.changed:
            self.protocol.add_part(part)

    def _close(self) -> None:
        with self.changing():
            self.protocol.close()
