"""The client's half of a live Track call, without I/O: `TrackProtocol` for video that is pushed rather than fetched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from masklet import _wire
from masklet._protocol import Step, TrackProtocol
from masklet._results import FrameResult, PromptResult
from masklet.errors import InvalidArgument, MaskletError
from masklet.prompts import Prompt
from masklet.v1 import tracking_pb2

Delivery = Literal["latest", "lossless"]
_DELIVERIES = {"latest": tracking_pb2.DELIVERY_LATEST, "lossless": tracking_pb2.DELIVERY_LOSSLESS}

# Frames or packets that wait for the network before `Live.send` waits, too.
MAX_UNSENT = 4
# Packets sent that the server has not decoded, as the contract bounds them.
MAX_PACKET_BYTES = 8 * 1024**2


@dataclass(frozen=True)
class VideoPacket:
    """A piece of a codec's data.

    Attributes:
        data: An access unit, or with `is_fragment` any piece of the stream.
        codec: "h264", "hevc", "vp8", "vp9" or "av1"; may be empty after a stream's first packet.
        extradata: What the codec needs beforehand, such as avcC; in the first packet, if at all.
        is_fragment: Cut anywhere, the same in all packets of a stream; costs a frame's time.
    """

    data: bytes
    codec: str = ""
    extradata: bytes = b""
    is_fragment: bool = False

    def __repr__(self) -> str:
        return f"VideoPacket({self.codec or 'codec as before'}, {len(self.data)} bytes)"


class LiveProtocol(TrackProtocol):
    """One live session as the client sees it.

    With lossless delivery, pictures go only as far ahead of the results as `TrackProtocol` says, and packets as far as
    the server has room for, so that it never stops reading with an acknowledgement behind them.
    """

    def __init__(self, config: tracking_pb2.TrackConfig, prompts: Iterable[Prompt]) -> None:
        super().__init__(config, prompts, pictures=False)
        self._lossless = config.delivery != tracking_pb2.DELIVERY_LATEST
        self._lookahead = 0  # a live session does not look ahead
        self._unsent: deque[tracking_pb2.TrackRequest] = deque()
        self._under_way: deque[int] = deque()  # bytes of packets that the server has not decoded
        self._packets_taken = 0
        self._ending = False

    @property
    def has_room(self) -> bool:
        """Whether another part may be pushed."""
        return len(self._unsent) < MAX_UNSENT

    @property
    def is_over(self) -> bool:
        """Nothing that is pushed would be sent."""
        return self._closed or self.finished or self._ending

    def push(self, part: tracking_pb2.TrackRequest) -> None:
        """Send a frame or packet after those pushed before."""
        self._unsent.append(part)

    def end(self) -> None:
        """Send the end of the video after what was pushed."""
        if not self._ending:
            self._ending = True
            self._unsent.append(tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo()))

    def prompt(self, prompt: Prompt, frame_index: int | None) -> None:
        """Send a prompt for a frame, its own time or the next frame, before what was pushed and is not sent."""
        message = _wire.prompt_to_wire(prompt)
        if frame_index is not None:
            message.frame_index = frame_index
            message.ClearField("pts_seconds")
        elif prompt.pts_seconds is None:
            message.on_next_frame = True
        self._words.append(tracking_pb2.TrackRequest(prompt=message))

    def next_request(self) -> tracking_pb2.TrackRequest | Step:
        """See `TrackProtocol.next_request`; never asks for video."""
        request = super().next_request()
        if request is not Step.VIDEO:
            return request
        if not self._unsent or not self._may_send(self._unsent[0]):
            return Step.WAIT
        part = self._unsent.popleft()
        if part.HasField("frame"):
            self._pictures_sent += 1
        elif part.HasField("packet"):
            self._under_way.append(len(part.packet.data))
        return part

    def _may_send(self, part: tracking_pb2.TrackRequest) -> bool:
        if part.HasField("packet"):
            return not self._under_way or sum(self._under_way) + len(part.packet.data) <= MAX_PACKET_BYTES
        if part.HasField("frame") and self._lossless:
            return self._pictures_sent - self._frames_taken < max(self._window, 1)
        return True

    def receive(self, response: tracking_pb2.TrackResponse) -> FrameResult | PromptResult | MaskletError | None:
        """See `TrackProtocol.receive`."""
        if response.HasField("packets_taken"):
            while self._under_way and self._packets_taken < response.packets_taken.count:
                self._under_way.popleft()
                self._packets_taken += 1
        return super().receive(response)


def live_config(config: tracking_pb2.TrackConfig, *, delivery: str, max_latency: float) -> tracking_pb2.TrackConfig:
    """The first message of a live call.

    Args:
        config: What any call says.
        delivery: One of `Delivery`.
        max_latency: Seconds; 0 for the server's default.

    Raises:
        InvalidArgument: There is no such delivery, or the latency does not go with it.
    """
    if delivery not in _DELIVERIES:
        raise InvalidArgument.of("delivery", f"is {delivery!r}, must be one of {', '.join(get_args(Delivery))}")
    if not 0 <= max_latency < float("inf"):
        raise InvalidArgument.of("max_latency", f"is {max_latency!r}, must be seconds, 0 or above")
    if max_latency and delivery != "latest":
        raise InvalidArgument.of("max_latency", "goes with delivery='latest' alone; leave it out")
    live = tracking_pb2.TrackConfig(live=True, delivery=_DELIVERIES[delivery], max_latency_seconds=max_latency)
    live.MergeFrom(config)
    return live
