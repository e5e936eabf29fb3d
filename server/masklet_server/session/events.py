"""What a client says to a session, free of any wire format; `replies` has what the session says."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from masklet.errors import InvalidArgument, MaskletError
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.masks.encoding import MaskEncoding
from masklet_server.session.prompts import GivenPrompt
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture


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
        correction_window: Of the last frames, how many are kept to be corrected; 0 for the server's limit. A client
            that says it has the last word: the session ends once all its results are acknowledged.

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

# With propagation on request, these are answered in the order in which they come.
Request = PromptObject | RemoveObject | ClearPrompts | Propagate | Reset | Unreadable
# What a session leaves to its mode.
ModeEvent = Request | StopPropagation
