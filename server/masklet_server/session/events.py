"""What a client says to a session and what the session answers, free of any wire format."""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument, MaskletError
from masklet_server.engine.policies import MemoryPolicy
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.visibility import ObjectEvent
from masklet_server.video.packets import Packet
from masklet_server.video.pictures import Picture
from masklet_server.video.source import VideoInfo

# From the client


class Delivery(enum.Enum):
    """What happens to frames that come faster than they can be tracked."""

    LOSSLESS = enum.auto()
    """Who sends them has to wait."""

    LATEST = enum.auto()
    """Those that have waited too long are skipped."""


class Propagation(enum.Enum):
    """When frames are tracked."""

    AUTOMATIC = enum.auto()
    """Each as it arrives."""

    ON_REQUEST = enum.auto()
    """When the client asks for it."""


class Direction(enum.Enum):
    """Where a propagation goes."""

    FORWARD = enum.auto()
    BACKWARD = enum.auto()
    BOTH = enum.auto()
    """Forward, then backward from the same frame."""


@dataclass(frozen=True)
class Configure:
    """What holds for the whole session.

    Attributes:
        model: Empty for the default.
        mask_encoding: How masks go back.
        deterministic: Never batched with other sessions.
        window: Frame results ahead of acknowledgement; 0 for the server's limit.
        frame_count: Frames the client says there are; 0 where it does not know. It is believed for SAM 2.1's position
            encoding of short clips; a client that is wrong gets an error at the end, and masks that are a little off.
        delivery: Of frames that come too fast.
        max_latency_seconds: How long a frame may wait to be tracked; 0 for the server's default.
        live: The video has no known end. True where the delivery is LATEST.
        source_url: Where the server fetches the video itself; empty: the client sends it.
        propagation: When frames are tracked.
        return_logits: Results carry logits, too.
        timings: Frame results say where their time went.
        memory_policy: What the objects' memories keep.
        correction_window: Of the last frames, how many can still be prompted; 0 for the server's limit. A client that
            says it has the last word: the session ends once all its results are acknowledged.

    Raises:
        InvalidArgument: The latency is no time, or the options contradict one another.
    """

    model: str = ""
    mask_encoding: MaskEncoding = MaskEncoding.COCO_RLE
    deterministic: bool = False
    window: int = 0
    frame_count: int = 0
    delivery: Delivery = Delivery.LOSSLESS
    max_latency_seconds: float = 0.0
    live: bool = False
    source_url: str = ""
    propagation: Propagation = Propagation.AUTOMATIC
    return_logits: bool = False
    timings: bool = False
    memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    correction_window: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.max_latency_seconds < math.inf:
            raise InvalidArgument.of(
                "config.max_latency_seconds", f"is {self.max_latency_seconds}, must be 0 or more seconds"
            )
        if self.max_latency_seconds and self.delivery is not Delivery.LATEST:
            raise InvalidArgument.of("config.max_latency_seconds", "goes with DELIVERY_LATEST alone; leave it out")
        if self.propagation is Propagation.ON_REQUEST:
            if self.delivery is Delivery.LATEST:
                raise InvalidArgument.of("config.delivery", "is LATEST, which PROPAGATION_ON_REQUEST excludes")
            if self.live:
                raise InvalidArgument.of("config.live", "excludes PROPAGATION_ON_REQUEST, for which a video must end")
            if self.correction_window:
                raise InvalidArgument.of(
                    "config.correction_window",
                    "is not for PROPAGATION_ON_REQUEST, which corrects any frame; leave it out",
                )
            if self.memory_policy is not MemoryPolicy.SAM2:
                raise InvalidArgument.of(
                    "config.memory_policy", f"is {self.memory_policy.name}, PROPAGATION_ON_REQUEST knows SAM2 alone"
                )
        object.__setattr__(self, "live", self.live or self.delivery is Delivery.LATEST)
        if self.live and self.frame_count:
            raise InvalidArgument.of(
                "config.frame_count", f"is {self.frame_count}, but a live stream has no known end; leave it out"
            )


@dataclass(frozen=True)
class VideoChunk:
    """The next bytes of a video file."""

    data: bytes


@dataclass(frozen=True)
class NextPicture:
    """The next picture of a video that comes as pictures."""

    picture: Picture


@dataclass(frozen=True)
class NextPacket:
    """The next packet of a video that comes as a codec's packets."""

    packet: Packet


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """A request that the client may give a number, which everything sent in answer carries.

    Attributes:
        request_id: 0 for none.
    """

    request_id: int = 0


@dataclass(frozen=True)
class PromptObject(Numbered):
    """Follow, or follow better, one object from one frame on.

    Attributes:
        prompt: What is said.
        on_next_frame: It is for the next frame to be tracked, whichever the prompt names.

    Raises:
        InvalidArgument: It names a time as well.
    """

    prompt: GivenPrompt
    on_next_frame: bool = False

    def __post_init__(self) -> None:
        if self.on_next_frame and self.prompt.prompt.pts_seconds is not None:
            raise InvalidArgument.of("pts_seconds", "excludes on_next_frame; a prompt is for a time or for that frame")


@dataclass(frozen=True)
class RemoveObject(Numbered):
    """Stop following an object from the next frame on."""

    object_id: int


@dataclass(frozen=True)
class ClearPrompts(Numbered):
    """Take back what was said of an object on a frame; in automatic propagation only what still waits for it."""

    object_id: int
    frame_index: int


@dataclass(frozen=True)
class Propagate(Numbered):
    """Track a range of frames.

    Attributes:
        start_frame_index: None: the first one with a prompt.
        max_frames: Beyond the first one, at most; None: all.
        direction: Where to.
    """

    start_frame_index: int | None = None
    max_frames: int | None = None
    direction: Direction = Direction.FORWARD


@dataclass(frozen=True)
class StopPropagation:
    """End the propagation under way, and drop those that wait."""


@dataclass(frozen=True)
class Reset(Numbered):
    """Forget all objects."""


@dataclass(frozen=True)
class Ack:
    """Every response up to this sequence has been taken."""

    sequence: int


@dataclass(frozen=True)
class EndOfVideo:
    """No more video will come."""


@dataclass(frozen=True)
class Cancel:
    """Drop everything now."""


@dataclass(frozen=True)
class Unreadable(Numbered):
    """A message that could not be understood but harms no other; it is answered with its error."""

    error: MaskletError


Event = (
    Configure
    | VideoChunk
    | NextPicture
    | NextPacket
    | PromptObject
    | RemoveObject
    | ClearPrompts
    | Propagate
    | StopPropagation
    | Reset
    | Ack
    | EndOfVideo
    | Cancel
    | Unreadable
)

# What is done in the order in which it was asked for, where propagation is on request.
Request = PromptObject | RemoveObject | ClearPrompts | Propagate | Reset | Unreadable

# To the client


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
