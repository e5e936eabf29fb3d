"""The client's half of a live Track call, without I/O: a `TrackProtocol` whose video the caller pushes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from masklet._protocol import wire
from masklet._protocol.results import FrameResult, PromptResult
from masklet._protocol.track import Step, TrackProtocol
from masklet.errors import MaskletError
from masklet.prompts import Prompt
from masklet.v1 import tracking_pb2

MAX_UNSENT = 4
"""Frames or packets that may wait for the network; `Live.send` waits while there are more."""
MAX_PACKET_BYTES = 8 * 1024**2
"""Bytes of packets that may be sent before the server has decoded them; the contract's limit."""


@dataclass(frozen=True)
class VideoPacket:
    """A piece of an encoded video stream, as a demuxer or a network stream gives it.

    Attributes:
        data: One access unit; with `is_fragment` any piece of the stream.
        codec: "h264", "hevc", "vp8", "vp9" or "av1"; may be empty after the first packet of a stream.
        extradata: What the codec needs beforehand, such as avcC; in the first packet, if at all.
        is_fragment: True where packets are cut anywhere; must be the same for all packets of a stream. Results then
            come one frame later.
    """

    data: bytes
    codec: str = ""
    extradata: bytes = b""
    is_fragment: bool = False

    def __repr__(self) -> str:
        return f"VideoPacket({self.codec or 'codec as before'}, {len(self.data)} bytes)"


class LiveProtocol(TrackProtocol):
    """One live session as the client sees it.

    With lossless delivery, pictures go only as far ahead of the results as `TrackProtocol` says, and packets only as
    far as the server has room for them. So the server never stops reading while an acknowledgement is queued behind
    them.

    Args:
        config: The first message.
        prompts: Prompts to send before the video.
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
        """Whether the caller may push another part."""
        return len(self._unsent) < MAX_UNSENT

    @property
    def is_over(self) -> bool:
        """Whether nothing that the caller pushes would be sent any more."""
        return self._closed or self.finished or self._ending

    def push(self, part: tracking_pb2.TrackRequest) -> None:
        """Send a frame or packet, after those that were pushed before."""
        self._unsent.append(part)

    def end(self) -> None:
        """Send the end of the video, after what was pushed."""
        if not self._ending:
            self._ending = True
            self._unsent.append(tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo()))

    def keep_alive(self) -> None:
        """Send something that changes nothing, so that the server does not take a pause of the video for its end."""
        if not self.is_over:
            self._requests.append(tracking_pb2.TrackRequest(ack=tracking_pb2.Ack(sequence=self._ack_sent)))

    def prompt_on(self, prompt: Prompt, frame_index: int | None) -> None:
        """Send a prompt, before what was pushed and is not sent yet.

        Args:
            prompt: What to track. Its own `frame_index` does not count.
            frame_index: The prompt's frame; None: the frame at the prompt's `pts_seconds`, or else the next frame.

        Raises:
            FailedPrecondition: The stream has ended.
        """
        message = wire.prompt_to_wire(prompt)
        if frame_index is not None:
            message.frame_index = frame_index
            message.ClearField("pts_seconds")
        elif prompt.pts_seconds is None:
            message.on_next_frame = True
        self._request(tracking_pb2.TrackRequest(prompt=message))

    def _next_request(self) -> tracking_pb2.TrackRequest | Step:
        """The next message to send, or what to do instead; never `Step.VIDEO`."""
        request = super()._next_request()
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
        """Take in one response, as `TrackProtocol.receive` does."""
        if response.HasField("packets_taken"):
            while self._under_way and self._packets_taken < response.packets_taken.count:
                self._under_way.popleft()
                self._packets_taken += 1
        return super().receive(response)


def packet_to_wire(packet: VideoPacket) -> tracking_pb2.TrackRequest:
    """A packet as the message that carries it."""
    return tracking_pb2.TrackRequest(
        packet=tracking_pb2.Packet(
            codec=packet.codec, extradata=packet.extradata, data=packet.data, is_fragment=packet.is_fragment
        )
    )
