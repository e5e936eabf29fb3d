"""The client's half of an annotation session, without I/O: `TrackProtocol` for a video that is tracked on request.

Every request gets a number, which the server's answers to it carry: an answer is told from the results of a propagation
that is being stopped, and a fault from that of another request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from masklet._protocol import TrackProtocol
from masklet._results import FrameResult, PromptResult
from masklet.errors import InvalidArgument, MaskletError
from masklet.prompts import MAX_ID
from masklet.v1 import tracking_pb2

Direction = Literal["forward", "backward", "both"]
_DIRECTIONS = {
    "forward": tracking_pb2.DIRECTION_FORWARD,
    "backward": tracking_pb2.DIRECTION_BACKWARD,
    "both": tracking_pb2.DIRECTION_BOTH,
}


@dataclass(frozen=True)
class Applied:
    """A request that has no result of its own took effect."""


@dataclass(frozen=True)
class PropagationEnd:
    """No more results of a propagation will come."""


@dataclass(frozen=True)
class Answer:
    """What the server says.

    Attributes:
        request_id: The request that it answers; 0 for none.
        event: What it is; None for what only the protocol has to know.
    """

    request_id: int
    event: FrameResult | PromptResult | Applied | PropagationEnd | MaskletError | None


class AnnotationProtocol(TrackProtocol):
    """One annotation session as the client sees it.

    Pictures are sent as fast as the server takes them: it decodes them all before it is asked for any. A frame result
    is acknowledged when the next one is asked for, or when there is none: with a window of 1 no frame is tracked that
    nobody asked for.

    Attributes:
        is_decoded: The server has seen all of the video; `video.frame_count` is true from then on.
    """

    def __init__(self, config: tracking_pb2.TrackConfig) -> None:
        super().__init__(config, (), pictures=False)
        self.is_decoded = False
        self._acks_when_asked = True
        self._requests = 0

    def ask(self, request: tracking_pb2.TrackRequest) -> int:
        """Send a request before the video's next part; the number that its answers will carry."""
        self._requests += 1
        request.request_id = self._requests
        self._words.append(request)
        return self._requests

    def take(self, response: tracking_pb2.TrackResponse) -> Answer:
        """Take one response in; see `acknowledge` for frame results."""
        if response.HasField("video_info"):
            self.is_decoded = self.video is not None  # it comes twice
        if response.HasField("applied"):
            return Answer(response.request_id, Applied())
        if response.HasField("propagation_done"):
            self.acknowledge()
            return Answer(response.request_id, PropagationEnd())
        event = self.receive(response)
        if isinstance(event, PromptResult):
            self.acknowledge()
        return Answer(response.request_id, event)


def annotation_config(config: tracking_pb2.TrackConfig, *, return_logits: bool) -> tracking_pb2.TrackConfig:
    """The first message of an annotation.

    Args:
        config: What any call says.
        return_logits: Results carry logits, too.
    """
    annotation = tracking_pb2.TrackConfig(
        propagation=tracking_pb2.PROPAGATION_ON_REQUEST, return_logits=bool(return_logits)
    )
    annotation.MergeFrom(config)
    return annotation


def propagate_request(
    start_frame_index: int | None, max_frames: int | None, direction: str
) -> tracking_pb2.TrackRequest:
    """Track a range of frames.

    Raises:
        InvalidArgument: An argument is no frame index, no number of frames, or no `Direction`.
    """
    if direction not in _DIRECTIONS:
        raise InvalidArgument.of("direction", f"is {direction!r}, must be one of {', '.join(get_args(Direction))}")
    for field, value in (("start_frame_index", start_frame_index), ("max_frames", max_frames)):
        if value is not None and (isinstance(value, bool) or not 0 <= value <= MAX_ID):
            raise InvalidArgument.of(field, f"is {value!r}, must be a whole number from 0 to {MAX_ID}, or None")
    propagate = tracking_pb2.Propagate(
        start_frame_index=start_frame_index, max_frames=max_frames, direction=_DIRECTIONS[direction]
    )
    return tracking_pb2.TrackRequest(propagate=propagate)
