"""The client's half of an annotation, without I/O: a `TrackProtocol` for a video that is tracked on request.

Every request gets a number, and the server's answers carry the number of their request. So the answer to a request is
not mistaken for a late result of a propagation that is being stopped, or for the error of another request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from masklet._protocol.repetition import RequestHistory
from masklet._protocol.results import FrameResult, PromptResult
from masklet._protocol.track import Step, TrackProtocol
from masklet.errors import InvalidArgument, MaskletError
from masklet.prompts import MAX_ID
from masklet.v1 import tracking_pb2

Direction = Literal["forward", "backward", "both"]
"""Which way to track: to the end of the video, to its start, or first forward and then backward."""
_DIRECTIONS = {
    "forward": tracking_pb2.DIRECTION_FORWARD,
    "backward": tracking_pb2.DIRECTION_BACKWARD,
    "both": tracking_pb2.DIRECTION_BOTH,
}


@dataclass(frozen=True)
class Applied:
    """The answer to a request that has no result: it took effect."""


@dataclass(frozen=True)
class PropagationEnd:
    """The end of a propagation: no more of its results will come."""


@dataclass(frozen=True)
class Answer:
    """One response of the server.

    Attributes:
        request_id: The number of the request that it answers; 0 where it answers none.
        event: What the caller should know; None where only the protocol needs the response.
    """

    request_id: int
    event: FrameResult | PromptResult | Applied | PropagationEnd | MaskletError | None


class AnnotationProtocol(TrackProtocol):
    """One annotation as the client sees it.

    Pictures are sent as fast as the server reads them, because it stores all frames before they are tracked. A frame
    result is acknowledged when the caller asks for the next one, or when there is no next one. So with a window of 1
    the server tracks no frame that the caller did not ask for.

    If the server has lost the session, the client begins another one, and repeats its requests there: `begin_anew`. The
    caller sees nothing of it.

    Args:
        config: The first message.
        reads_again: True where the video can be read again from any position.

    Attributes:
        is_decoded: True once the server has decoded the whole video; `video.frame_count` is exact from then on.
    """

    def __init__(self, config: tracking_pb2.TrackConfig, *, reads_again: bool = False) -> None:
        super().__init__(config, (), pictures=False, reads_again=reads_again)
        self.is_decoded = False
        self._acks_when_asked = True
        self._can_prepare = False
        self._looked_at: int | None = None  # not sent yet
        self._history = RequestHistory()
        self._described = 0  # so many times the session has told of the video

    def ask(self, request: tracking_pb2.TrackRequest) -> int:
        """Send a request before the next part of the video.

        Returns:
            The request's number, which its answers will carry.
        """
        number = self._number(request)
        self._requests.append(request)
        return number

    def _number(self, request: tracking_pb2.TrackRequest) -> int:
        """Give a request a number of its own. One before it stays free, as `RequestHistory` needs it."""
        self._last_request_id += 1
        return super()._number(request)

    @property
    def can_begin_anew(self) -> bool:
        """Whether the whole video and all requests are still here."""
        return self.resumption is not None and self.resumption.has_whole_video and self._history.is_complete

    def begin_anew(self) -> None:
        """Have the next call begin another session, and repeat the requests in it."""
        if self.resumption is not None:
            self.resumption.begin_anew()
            if self._history.is_stopping:
                self.acknowledge()  # its results are not waited for
            self._history.begin_anew()
            self._described = 0

    @property
    def is_repeating(self) -> bool:
        """Whether another session is being brought to where the one before it stood."""
        return self._history.is_repeating

    def prepare(self, frame_index: int) -> None:
        """Name the frame that is looked at. Only the last one is sent; servers that do not know the message get none.

        Raises:
            InvalidArgument: It is no frame index.
        """
        _check_whole("frame_index", frame_index)
        self._looked_at = frame_index

    def _next_request(self) -> tracking_pb2.TrackRequest | Step:
        """The next message to send, or what to do instead. Requests go before the frame that is looked at."""
        if self._closed or self.finished:
            return super()._next_request()
        if (repeated := self._history.next_request()) is not None:
            return repeated
        if self._looked_at is not None and self._can_prepare and not self._requests and not self.is_repeating:
            frame_index, self._looked_at = self._looked_at, None
            return tracking_pb2.TrackRequest(prepare=tracking_pb2.Prepare(frame_index=frame_index))
        request = super()._next_request()
        if not isinstance(request, Step) and request.request_id and self.resumption is not None:
            self._history.note(request)
        return request

    def _acknowledgement(self) -> int:
        return self._history.acknowledgement(self._ack_due)

    def take(self, response: tracking_pb2.TrackResponse) -> Answer:
        """Take in one response, and say which request it answers.

        Raises:
            Internal: As `receive`.
            Unavailable: As `receive`; or another session has not come to where the one before it stood.
        """
        is_new = self._history.take(response)
        if response.HasField("session"):
            self._can_prepare = response.session.can_prepare
        if response.HasField("video_info"):
            is_new = not self.is_decoded
            self._described += 1
            self.is_decoded = self._described > 1 or self.is_decoded
        if not is_new:
            if self.resumption is not None:
                self.resumption.take(response)
            return Answer(0, None)
        event: FrameResult | PromptResult | Applied | PropagationEnd | MaskletError | None = self.receive(response)
        if response.HasField("applied"):
            event = Applied()
        elif response.HasField("propagation_done"):
            event = PropagationEnd()
        if isinstance(event, PromptResult | PropagationEnd):
            self.acknowledge()
        return Answer(response.request_id, event)


def propagate_request(
    start_frame_index: int | None, max_frames: int | None, direction: str, object_ids: Iterable[int] | None = None
) -> tracking_pb2.TrackRequest:
    """The request to track a range of frames; `Annotation.propagate` describes the arguments.

    Raises:
        InvalidArgument: An argument is not a frame index, a number of frames, a `Direction`, or ids of objects.
    """
    if direction not in _DIRECTIONS:
        raise InvalidArgument.of("direction", f"is {direction!r}, must be one of {', '.join(get_args(Direction))}")
    for field, value in (("start_frame_index", start_frame_index), ("max_frames", max_frames)):
        if value is not None:
            _check_whole(field, value, ", or None")
    chosen = None if object_ids is None else list(object_ids)
    if chosen is not None and not chosen:
        raise InvalidArgument.of("object_ids", "is empty; name an object, or leave it out to track all")
    for object_id in chosen or ():
        if isinstance(object_id, bool) or not 1 <= object_id <= MAX_ID:
            raise InvalidArgument.of("object_ids", f"has {object_id!r}, must be whole numbers from 1 to {MAX_ID}")
    propagate = tracking_pb2.Propagate(
        start_frame_index=start_frame_index,
        max_frames=max_frames,
        direction=_DIRECTIONS[direction],
        object_ids=chosen,
    )
    return tracking_pb2.TrackRequest(propagate=propagate)


def _check_whole(field: str, value: int, or_else: str = "") -> None:
    if isinstance(value, bool) or not 0 <= value <= MAX_ID:
        raise InvalidArgument.of(field, f"is {value!r}, must be a whole number from 0 to {MAX_ID}{or_else}")
