"""What a Track call says of itself, whichever kind of call it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from masklet.errors import InvalidArgument
from masklet.v1 import common_pb2, tracking_pb2

MemoryPolicy = Literal["sam2", "distractor_aware", "motion_aware"]
_MEMORY_POLICIES = {
    "sam2": tracking_pb2.MEMORY_POLICY_SAM2,
    "distractor_aware": tracking_pb2.MEMORY_POLICY_DISTRACTOR_AWARE,
    "motion_aware": tracking_pb2.MEMORY_POLICY_MOTION_AWARE,
}


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """What every kind of call may say; `Client.track` says what each option does.

    Raises:
        InvalidArgument: A window is negative or not a number, or there is no such memory policy.
    """

    model: str = ""
    deterministic: bool = False
    memory_policy: MemoryPolicy = "sam2"
    window: int = 0
    correction_window: int = 0
    timeout: float | None = None
    timings: bool = False

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("correction_window", self.correction_window)):
            if not isinstance(value, int) or not 0 <= value < 2**32:
                raise InvalidArgument.of(name, f"is {value!r}, must be a whole number, 0 or above")
        if self.memory_policy not in _MEMORY_POLICIES:
            policies = ", ".join(get_args(MemoryPolicy))
            raise InvalidArgument.of("memory_policy", f"is {self.memory_policy!r}, must be one of {policies}")

    def config(self, *, frame_count: int = 0, source_url: str = "") -> tracking_pb2.TrackConfig:
        """The first message of a call.

        Args:
            frame_count: Frames of the video; 0 where they are not known.
            source_url: Where the server fetches the video itself; empty: it is sent.
        """
        return tracking_pb2.TrackConfig(
            model=self.model,
            mask_encoding=common_pb2.MASK_ENCODING_COCO_RLE,
            deterministic=self.deterministic,
            window=self.window,
            correction_window=self.correction_window,
            frame_count=frame_count,
            source_url=source_url,
            timings=self.timings,
            memory_policy=_MEMORY_POLICIES[self.memory_policy],
        )
