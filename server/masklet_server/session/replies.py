"""The messages from a session to its client, in no wire format. `events` has the messages to the session."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from masklet.errors import MaskletError
from masklet_server.masks.encoding import EncodedMask
from masklet_server.video.info import VideoInfo


@dataclass(frozen=True)
class ResumeGrant:
    """How a client can resume its session.

    Attributes:
        token: Names the session in a `Resume`. It is a secret.
        epoch: 1 in the first call of the session, and one more in each further one.
        park_seconds: How long the session waits for a client whose call has ended.
        keep_bytes: Bytes of responses that are kept for a client that has not acknowledged them.
    """

    token: str
    epoch: int
    park_seconds: float
    keep_bytes: int


@dataclass(frozen=True)
class Opened:
    """The session exists.

    Attributes:
        session_id: Identifies the session, in problem reports for example.
        model: Name of the session's model.
        window: Number of frame results that are sent before the client acknowledges the first of them, at most.
        max_objects: Number of objects that are tracked at once, at most.
        idle_timeout_seconds: The session ends after this time without progress.
        resume: How the client can resume the session; None: it can't.
        can_prepare: The client may say which frame it looks at.
    """

    session_id: str
    model: str
    window: int
    max_objects: int
    idle_timeout_seconds: float
    resume: ResumeGrant | None = None
    can_prepare: bool = False


@dataclass(frozen=True)
class Described:
    """The first frame is decoded; or, in propagation on request, the whole video is.

    Attributes:
        info: Describes the video.
        undecoded: Times in nanoseconds of the frames that could not be decoded.
        broken_off: Why the video ended before its end; None if it did not.
    """

    info: VideoInfo
    undecoded: tuple[int, ...] = ()
    broken_off: MaskletError | None = None


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
        object_id: The client's id of the object.
        mask: The mask, of the video's size.
        box: x0, y0 inclusive, x1, y1 exclusive, in pixels; None if the mask is empty.
        area: Number of foreground pixels.
        predicted_iou: The model's own estimate of the mask's quality, 0 to 1.
        object_score: Logit. Above 0 the model sees the object in the picture.
        logits: ``float32[h, w]``, low-resolution; None unless the client asks for them.
        event: What happened to the object on this frame. Only a frame's first result has one.
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
        """Whether the model sees the object in the picture, and shows where."""
        return self.object_score > 0 and self.area > 0


@dataclass(frozen=True)
class Taken:
    """When a resumable session has taken a request.

    Attributes:
        request_id: The request's number.
        after_frame: The last frame that was tracked before; None: none was.
        after_sequence: The sequence of the last result that was made before; 0: none was.
    """

    request_id: int
    after_frame: int | None
    after_sequence: int


@dataclass(frozen=True)
class PromptResult:
    """The mask that a prompt gives on its frame, before the frame is tracked."""

    sequence: int
    frame_index: int
    object: ObjectResult
    taken: Taken | None = None


@dataclass(frozen=True)
class Timings:
    """How long each part of a frame's work took, in seconds.

    Attributes:
        decode: Reading, decoding and resizing the picture.
        queue: Waiting for the device.
        encode: The image encoder, for all frames of the batch.
        step: Prompts, memory attention, mask decoder and memory encoder, for all objects of the batch.
        mask: Drawing masks on a CPU, encoding and measuring them.
        send: Giving the result before this one to the network.
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
        sequence: The number to which `Ack` refers.
        frame_index: 0-based.
        pts: Presentation time in units of `time_base`.
        time_base: Seconds per unit.
        pts_nanoseconds: Presentation time in nanoseconds, rounded.
        objects: The objects, in order of their ids.
        skipped: Indices of the frames between the result before and this one, which were not tracked.
        capture_time_nanoseconds: As the client sent it with the frame.
        latency_seconds: Time since the frame's data arrived.
        revision: Number of earlier results for this frame. Above 0, in automatic propagation, the result has only the
            objects that were corrected.
        timings: How long each part took; None unless the client asks for it.
        undecoded: Times in nanoseconds of the frames between the frame before and this one that could not be decoded.
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
    undecoded: tuple[int, ...] = ()


@dataclass(frozen=True)
class PropagationDone:
    """A propagation has ended.

    Attributes:
        start_frame_index: The first frame.
        frame_count: Number of frame results that were sent.
        stopped: It did not go to its end, because the client stopped it, or because of an error.
    """

    start_frame_index: int
    frame_count: int
    stopped: bool


@dataclass(frozen=True)
class Applied:
    """A request with a number, and without a result of its own, was done."""

    taken: Taken | None = None


@dataclass(frozen=True)
class Problem:
    """An error that the client can mend. The session goes on."""

    error: MaskletError


@dataclass(frozen=True)
class PacketsTaken:
    """Number of packets, since the start, that have been decoded."""

    count: int


@dataclass(frozen=True)
class Done:
    """All results of the session are sent.

    Attributes:
        frame_count: Number of frames that were tracked, or that the video has.
        undecoded: Times in nanoseconds of the frames behind the last one that could not be decoded.
    """

    frame_count: int
    undecoded: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A response to a request that has a number.

    Attributes:
        request_id: The request's number.
        response: The response itself.
    """

    request_id: int
    response: Response


@dataclass(frozen=True)
class Numbered:
    """A response of a resumable session.

    Attributes:
        number: Counts the session's responses from 1.
        response: The response itself.
    """

    number: int
    response: Response


@dataclass(frozen=True)
class Stored:
    """A response that was made before the session was restored.

    Attributes:
        message: The bytes of its message.
        sequence: Its sequence; 0: it has none.
    """

    message: bytes
    sequence: int


@dataclass(frozen=True)
class InputPosition:
    """How much of what a client sent was taken.

    Attributes:
        unit: What of the video is counted, by the contract's name of the field; empty: no video was taken.
        count: How many of them were taken.
        end_of_video: The end of the video was taken.
        request_id: The number of the last request that was taken; 0: none was.
        size: What was taken of the video, in bytes.
    """

    unit: Literal["", "video_bytes", "frame_count", "packet_count"] = ""
    count: int = 0
    end_of_video: bool = False
    request_id: int = 0
    size: int = 0


class Resumption(enum.Enum):
    """How a session was resumed."""

    ATTACHED = enum.auto()
    """The server had the session."""

    RESTORED = enum.auto()
    """A snapshot had it."""

    REWOUND = enum.auto()
    """The session began anew."""


@dataclass(frozen=True)
class Resumed:
    """The session goes on.

    Attributes:
        how: How it goes on.
        position: The client sends the rest of its messages from here.
        rewound_to_frame: The last frame that is not tracked again, in a session that was restored; or that the client
            has already, in one that began anew.
    """

    how: Resumption
    position: InputPosition
    rewound_to_frame: int | None = None


@dataclass(frozen=True)
class InputKept:
    """The client need not keep what it sent before this position.

    Attributes:
        position: The position.
        snapshot_frame: The last frame in a snapshot that outlives the server; None: what this says is true as long as
            the server lives.
    """

    position: InputPosition
    snapshot_frame: int | None = None


@dataclass(frozen=True)
class Moving:
    """The server is about to stop.

    Attributes:
        token: Names the session in a `Resume`.
        deadline_seconds: The call ends after so many seconds.
    """

    token: str
    deadline_seconds: float


Response = (
    Opened
    | Described
    | PromptResult
    | FrameResult
    | PropagationDone
    | Applied
    | Problem
    | PacketsTaken
    | Done
    | Answer
    | Numbered
    | Stored
    | Resumed
    | InputKept
    | Moving
)
Send = Callable[[Response], Awaitable[None]]


def answering(request_id: int, response: Response) -> Response:
    """The response, together with the request's number, if it has one."""
    return Answer(request_id, response) if request_id else response
