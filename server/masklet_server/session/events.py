"""The messages from a client to a session, in no wire format. `replies` has the messages back."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from masklet.errors import InvalidArgument, MaskletError
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.masks.edges import Edges
from masklet_server.masks.encoding import MaskEncoding
from masklet_server.session.prompts import GivenPrompt
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture

# Far more responses than a session can have in a lifetime. Counting on from here does not leave 64 bits.
_MAX_NUMBER = 2**62


class Delivery(enum.Enum):
    """What happens to frames that arrive faster than they can be tracked."""

    LOSSLESS = enum.auto()
    """The sender has to wait: every frame is tracked."""

    LATEST = enum.auto()
    """Frames that have waited too long are skipped."""


class Propagation(enum.Enum):
    """When a session tracks its frames."""

    AUTOMATIC = enum.auto()
    """Each frame is tracked as it arrives."""

    ON_REQUEST = enum.auto()
    """Frames are tracked when the client asks for it."""


class Direction(enum.Enum):
    """The direction of a propagation in time."""

    FORWARD = enum.auto()
    BACKWARD = enum.auto()
    BOTH = enum.auto()
    """Forward, then backward from the same frame."""


@dataclass(frozen=True)
class Configure:
    """The configuration of a session.

    Attributes:
        model: Name of the model; empty: the server's default.
        mask_encoding: How masks are encoded in results.
        deterministic: The session's frames are never in a batch with those of other sessions.
        window: Number of frame results that may be sent before the client acknowledges the first of them; 0: the
            server's limit.
        frame_count: Number of frames according to the client; 0 if it does not know. SAM 2.1's position encoding of
            short clips relies on it. If it is wrong, the client gets an error at the end, and masks differ a little.
        delivery: What happens to frames that arrive too fast.
        max_latency_seconds: How long a frame may wait before it is tracked; 0: the server's default.
        live: The video has no known end. True if the delivery is LATEST.
        source_url: Where the server fetches the video; empty: the client sends it.
        propagation: When frames are tracked.
        return_logits: Results contain logits too.
        timings: Frame results say how long each part of the work took.
        memory_policy: Which tracked frames the objects' memories keep.
        edges: How the edges of masks are drawn; None: the model's own way.
        correction_window: Number of the last tracked frames that can be corrected; 0: the server's limit. If the client
            sets it, the session waits for corrections until all its results are acknowledged.
        resumable: The session outlives a call that breaks.

    Raises:
        InvalidArgument: The latency is not a time, or the options contradict each other.
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
    edges: Edges | None = None
    correction_window: int = 0
    resumable: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_latency_seconds < math.inf:
            raise InvalidArgument.of(
                "config.max_latency_seconds",
                f"is {self.max_latency_seconds}; must be a finite number of seconds, 0 or more",
            )
        if self.max_latency_seconds and self.delivery is not Delivery.LATEST:
            raise InvalidArgument.of(
                "config.max_latency_seconds", "can be used with DELIVERY_LATEST only; leave it out"
            )
        if self.propagation is Propagation.ON_REQUEST:
            if self.delivery is Delivery.LATEST:
                raise InvalidArgument.of(
                    "config.delivery",
                    "is LATEST, which can't be used with PROPAGATION_ON_REQUEST; leave one of the two out",
                )
            if self.live:
                raise InvalidArgument.of(
                    "config.live",
                    "can't be used with PROPAGATION_ON_REQUEST, which needs a video with an end; leave it out",
                )
            if self.correction_window:
                raise InvalidArgument.of(
                    "config.correction_window",
                    "can't be used with PROPAGATION_ON_REQUEST, which can correct any frame; leave it out",
                )
            if self.memory_policy is not MemoryPolicy.SAM2:
                raise InvalidArgument.of(
                    "config.memory_policy",
                    f"is {self.memory_policy.name}, but PROPAGATION_ON_REQUEST has only SAM2; leave it out",
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
    """The next picture of a video that is sent as pictures."""

    picture: Picture


@dataclass(frozen=True)
class NextPacket:
    """The next packet of a video that is sent as a codec's packets."""

    packet: Packet


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """A request to which the client may give a number. Every answer to it contains the number.

    Attributes:
        request_id: The number; 0: none.
    """

    request_id: int = 0


@dataclass(frozen=True)
class PromptObject(Numbered):
    """Track a new object from one frame on, or describe a tracked object better.

    Attributes:
        prompt: Where the object is.
        on_next_frame: The prompt is for the frame that is tracked next; the frame that it names means nothing.

    Raises:
        InvalidArgument: The prompt names a time, and `on_next_frame` is set.
    """

    prompt: GivenPrompt
    on_next_frame: bool = False

    def __post_init__(self) -> None:
        if self.on_next_frame and self.prompt.prompt.pts_seconds is not None:
            raise InvalidArgument.of("pts_seconds", "can't be used with on_next_frame; give one of the two")


@dataclass(frozen=True)
class RemoveObject(Numbered):
    """Track an object no longer, from the next frame on."""

    object_id: int


@dataclass(frozen=True)
class ClearPrompts(Numbered):
    """Take back an object's prompts on a frame; in automatic propagation, only those that still wait."""

    object_id: int
    frame_index: int


@dataclass(frozen=True)
class Propagate(Numbered):
    """Track a range of frames.

    Attributes:
        start_frame_index: The first frame; None: the first frame with a prompt.
        max_frames: Number of frames after the first one, at most; None: all.
        direction: Forward in time, backward, or both.
        object_ids: The objects to track; empty: all.
    """

    start_frame_index: int | None = None
    max_frames: int | None = None
    direction: Direction = Direction.FORWARD
    object_ids: frozenset[int] = frozenset()


@dataclass(frozen=True)
class StopPropagation(Numbered):
    """End the current propagation, and those that wait."""


@dataclass(frozen=True)
class Prepare:
    """The client looks at a frame, and may prompt an object there next."""

    frame_index: int


@dataclass(frozen=True)
class Reset(Numbered):
    """Forget all objects and their prompts."""


@dataclass(frozen=True)
class Ack:
    """The client has taken every response up to this sequence number."""

    sequence: int


@dataclass(frozen=True)
class EndOfVideo:
    """No more video will come."""


@dataclass(frozen=True)
class Cancel:
    """End the session now, without further results."""


@dataclass(frozen=True)
class Unreadable(Numbered):
    """A message that could not be understood. It is answered with its error, and the session goes on."""

    error: MaskletError


# Requests that automatic propagation knows, and that change what is tracked.
Operation = PromptObject | RemoveObject | ClearPrompts


@dataclass(frozen=True)
class TakenOperation:
    """An operation that a session took before it began anew, and when.

    Attributes:
        operation: The operation.
        after_sequence: The sequence of the last result that was made before the session took it; 0: none.
    """

    operation: Operation
    after_sequence: int


@dataclass(frozen=True)
class Replay:
    """What a session repeats that begins anew. The default repeats nothing.

    Attributes:
        operations: The operations whose answers the client has, in the order in which they were taken.
        last_sequence: The sequence of the last result that the client has; 0: none.
        last_ack: The last sequence that the client has acknowledged; 0: none.
    """

    operations: tuple[TakenOperation, ...] = ()
    last_sequence: int = 0
    last_ack: int = 0


NO_REPLAY = Replay()


@dataclass(frozen=True)
class Resume:
    """Go on with a session whose call has ended.

    Attributes:
        token: Names the session.
        last_response: The number of the last response that the client has; 0: none.
        can_rewind: The client can send the whole video again.
        config: The configuration that began the session; None: the client did not say.
        replay: What a session repeats that begins anew.
        last_frame: The frame of the last frame result that the client has; None: it has none.

    Raises:
        InvalidArgument: A number is too large to be right.
    """

    token: str
    last_response: int = 0
    can_rewind: bool = False
    config: Configure | None = None
    replay: Replay = NO_REPLAY
    last_frame: int | None = None

    def __post_init__(self) -> None:
        replay = self.replay
        for name, value in (("last_response", self.last_response), ("last_sequence", replay.last_sequence)):
            if value > _MAX_NUMBER:
                raise InvalidArgument.of(
                    name, f"is {value}, and no session has had so many; send the last one received"
                )
        if replay.last_ack > replay.last_sequence:
            raise InvalidArgument.of(
                "last_ack",
                f"is {replay.last_ack}, but the last result received is {replay.last_sequence} (last_sequence)",
            )


Event = (
    Configure
    | Resume
    | VideoChunk
    | NextPicture
    | NextPacket
    | PromptObject
    | RemoveObject
    | ClearPrompts
    | Propagate
    | StopPropagation
    | Prepare
    | Reset
    | Ack
    | EndOfVideo
    | Cancel
    | Unreadable
)

# With propagation on request, these are answered in the order in which they come.
Request = PromptObject | RemoveObject | ClearPrompts | Propagate | Reset | Unreadable
# What a session leaves to its mode.
ModeEvent = Request | StopPropagation | Prepare
