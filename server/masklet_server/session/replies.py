"""What a session says to its client, free of any wire format."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from masklet.errors import MaskletError
from masklet_server.masks.encoding import EncodedMask
from masklet_server.video.info import VideoInfo


@dataclass(frozen=True)
class Opened:
    """The session exists.

    Attributes:
        session_id: To be quoted in reports.
        model: In use.
        window: Frame results ahead of acknowledgement, at most.
        max_objects: Followed at once, at most.
        idle_timeout_seconds: Without progress, before the session is ended.
    """

    session_id: str
    model: str
    window: int
    max_objects: int
    idle_timeout_seconds: float


@dataclass(frozen=True)
class Described:
    """The first frame is decoded."""

    info: VideoInfo


class ObjectEvent(enum.Enum):
    """What happened to an object on a frame."""

    LOST = enum.auto()
    """It is not seen any more, and was last seen inside the picture."""

    REACQUIRED = enum.auto()
    """It is seen again."""

    OUT_OF_VIEW = enum.auto()
    """It is not seen any more, and was last seen at the picture's edge."""


@dataclass(frozen=True)
class ObjectResult:
    """One object on one frame.

    Attributes:
        object_id: The client's.
        mask: At the video's size.
        box: x0, y0 inclusive, x1, y1 exclusive; None where the mask is empty.
        area: Foreground pixels.
        predicted_iou: 0 to 1.
        object_score: Logit.
        logits: ``float32[h, w]``, low-resolution; None unless they were asked for.
        event: What happened to the object on this frame; only ever in a frame's first result.
    """

    object_id: int
    mask: EncodedMask
    box: tuple[int, int, int, int] | None
    area: int
    predicted_iou: float
    object_score: float
    logits: npt.NDArray[np.float32] | None = None
    event: ObjectEvent | None = None

    @property
    def visible(self) -> bool:
        """The model holds that the object is in the picture, and shows where."""
        return self.object_score > 0 and self.area > 0


@dataclass(frozen=True)
class PromptResult:
    """What the model makes of a prompt on its frame, before the frame is tracked."""

    sequence: int
    frame_index: int
    object: ObjectResult


@dataclass(frozen=True)
class Timings:
    """Where a frame's time went, in seconds.

    Attributes:
        decode: Reading, decoding and resizing the picture.
        queue: Waiting for the device.
        encode: The image encoder, for all frames that ran with it.
        step: Prompts, memory attention, mask decoder and memory encoder, for all objects that ran with it.
        mask: Run-lengths, boxes and areas.
        send: Handing the result before this one to the network.
    """

    decode: float = 0.0
    queue: float = 0.0
    encode: float = 0.0
    step: float = 0.0
    mask: float = 0.0
    send: float = 0.0


@dataclass(frozen=True)
class FrameResult:
    """All objects on one frame, by id.

    Attributes:
        sequence: What `Ack` refers to.
        frame_index: 0-based.
        pts: In units of `time_base` seconds.
        time_base: Seconds a unit.
        pts_nanoseconds: The same in nanoseconds, rounded.
        objects: In order of their ids.
        skipped: Frames before this one, and after the one before it, that were not tracked.
        capture_time_nanoseconds: As it came with the frame.
        latency_seconds: Since the frame's data arrived.
        revision: Counts the frame's results, from 0; above 0, in automatic propagation, the objects are those that were
            corrected.
        timings: If they were asked for.
    """

    sequence: int
    frame_index: int
    pts: int
    time_base: Fraction
    pts_nanoseconds: int
    objects: tuple[ObjectResult, ...]
    skipped: tuple[int, ...] = ()
    capture_time_nanoseconds: int = 0
    latency_seconds: float = 0.0
    revision: int = 0
    timings: Timings | None = None


@dataclass(frozen=True)
class PropagationDone:
    """A propagation has ended.

    Attributes:
        start_frame_index: Where it started.
        frame_count: Frame results that were sent.
        stopped: It was ended before its end.
    """

    start_frame_index: int
    frame_count: int
    stopped: bool


@dataclass(frozen=True)
class Applied:
    """A request that has no result of its own, but a number, took effect."""


@dataclass(frozen=True)
class Problem:
    """Something the client can mend; the session goes on."""

    error: MaskletError


@dataclass(frozen=True)
class PacketsTaken:
    """So many packets, since the start, wait no longer."""

    count: int


@dataclass(frozen=True)
class Done:
    """Everything was sent."""

    frame_count: int


@dataclass(frozen=True)
class Answer:
    """A response to a request that came with a number.

    Attributes:
        request_id: The number.
        response: What is said.
    """

    request_id: int
    response: Response


Response = (
    Opened | Described | PromptResult | FrameResult | PropagationDone | Applied | Problem | PacketsTaken | Done | Answer
)
Send = Callable[[Response], Awaitable[None]]


def answering(request_id: int, response: Response) -> Response:
    """The response with the request's number, if it has one."""
    return Answer(request_id, response) if request_id else response
