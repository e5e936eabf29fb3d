"""Frames that come as the packets of a codec, without a container."""

from __future__ import annotations

import time

from masklet.errors import FailedPrecondition, InvalidArgument
from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.video.formats import PACKET_DECODERS
from masklet_server.video.frame import KeyFrame
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import (
    DecodePacket,
    FrameDecoded,
    FromDecoder,
    OpenCodec,
    PacketDecoded,
    Setup,
    SlotFree,
)
from masklet_server.video.packet import Packet
from masklet_server.video.picture import DEFAULT_RATE, NANOSECONDS
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.fed_packets import FedPacket, FedPackets
from masklet_server.video.sources.fed_source import FedSource
from masklet_server.video.sources.sandboxed import Arrival


class PacketSource(FedSource[FedPacket]):
    """Gives the frames of a live stream of packets. The time base is one nanosecond.

    Attributes:
        fed: What is known of the packets that were sent to the decoder.
        decoding: What decoding leaves out.

    Args:
        image_size: Side S of the frames that come out.
        limits: What each frame may cost; limits on whole clips do not apply.
        frames_ahead: Frames that are decoded before they are asked for.
        decoding: One of `formats.LATEST_DECODING`: what decoding leaves out.
        share: What the client may have of disk and of decoders' memory.
    """

    def __init__(
        self,
        image_size: int,
        limits: VideoLimits,
        *,
        frames_ahead: int = 4,
        decoding: str = "full",
        share: ClientShare = UNBOUNDED,
    ) -> None:
        super().__init__(image_size, limits.of_live_stream(), frames_ahead=frames_ahead, what="packet", share=share)
        self.fed = FedPackets()
        self.decoding = decoding
        self._codec = ""
        self._is_fragment = False
        self._extradata = b""
        self._key_frame: KeyFrame | None = None

    @property
    def codec(self) -> tuple[str, bytes]:
        """The stream's codec, empty before the first packet, and its extradata."""
        return self._codec, self._extradata

    def begin_at(self, start: KeyFrame) -> None:
        """The first packet that will be fed begins this frame, and is this packet of a stream that began elsewhere."""
        self._taken = start.index
        self.fed = FedPackets(start.packet)

    async def _start(self) -> DecoderProcess:
        setup = Setup.for_frames("packets", self._image_size, self._frames_ahead, self._limits)
        return await DecoderProcess.start(setup)

    def has_room_for(self, packet: Packet) -> bool:
        """Whether the packet need not wait on disk, because less than `MAX_WAITING_BYTES` wait at the decoder."""
        return self._has_room(FedPacket.of(packet, 0.0))

    async def wait_for_room(self, packet: Packet) -> None:
        """Wait until the packet has room."""
        await self._until(lambda: self.has_room_for(packet))

    async def feed(self, packet: Packet) -> None:
        """Take the next packet. Where there is no room for it, it waits on disk.

        The packet is dropped if the decoder has ended, for which `next_frame` has the error.

        Raises:
            FailedPrecondition: `end` was called before.
            InvalidArgument: The codec is missing, or has changed.
            ResourceExhausted: The packets that wait take more than `max_upload_bytes`.
        """
        if self._ended:
            raise FailedPrecondition("packet: came after end_of_video; send all packets before it")
        self._check(packet)
        if self._over:
            return
        if not self._codec:
            self._codec, self._is_fragment, self._extradata = packet.codec, packet.is_fragment, packet.extradata
            self._decoder.write(OpenCodec(packet.codec, packet.is_fragment, packet.extradata, self.decoding))
        await self._feed(FedPacket.of(packet, time.monotonic()), packet.data)

    def _fits(self, item: FedPacket) -> bool:
        return self.fed.has_room_for(item)

    def _send_item(self, item: FedPacket, data: bytes) -> None:
        self._decoder.write(DecodePacket(self.fed.add(item), data))

    def _check(self, packet: Packet) -> None:
        if not self._codec:
            if not packet.codec:
                names = ", ".join(PACKET_DECODERS)
                raise InvalidArgument.of("packet.codec", f"is not set; the first packet must name its codec: {names}")
            return
        if packet.codec and packet.codec != self._codec:
            raise InvalidArgument.of(
                "packet.codec", f"is {packet.codec}, but the stream began as {self._codec}; open a new stream for it"
            )
        if packet.is_fragment != self._is_fragment:
            raise InvalidArgument.of("packet.is_fragment", "has changed; set it alike in all packets of a stream")

    async def packets_taken(self) -> int:
        """Wait until decoding has made progress; returns how many packets, since the start, have been decoded."""
        return await self.fed.progress()

    async def _receive(self) -> FromDecoder:
        while isinstance(message := await super()._receive(), PacketDecoded):
            self.fed.on_decoded(message.index)
            self._moved.set()
        return message

    def _arrival_of(self, index: int, pts: int) -> Arrival:
        """Take over the times of the packet in which the frame begins: `pts` is the number of that packet."""
        packet = self.fed.find(pts)
        if packet is None:
            return super()._arrival_of(index, round(index * NANOSECONDS / DEFAULT_RATE))
        seconds = index / DEFAULT_RATE if packet.pts_seconds is None else packet.pts_seconds
        return Arrival(index, round(seconds * NANOSECONDS), packet.arrived_seconds, packet.capture_time_nanoseconds)

    def _key_frame_of(self, index: int, message: FrameDecoded) -> KeyFrame | None:
        if message.is_key:
            self._key_frame = KeyFrame(index, message.pts)
        return self._key_frame

    def _on_taken(self) -> None:
        super()._on_taken()
        self._decoder.write(SlotFree())
