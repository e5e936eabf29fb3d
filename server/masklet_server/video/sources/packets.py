"""Frames that come as the packets of a codec, without a container."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument
from masklet_server.video import messages
from masklet_server.video.formats import PACKET_DECODERS
from masklet_server.video.limits import VideoLimits
from masklet_server.video.packet import Packet
from masklet_server.video.picture import DEFAULT_RATE, NANOSECONDS
from masklet_server.video.sandbox.decoder_process import DecoderProcess
from masklet_server.video.sources.sandboxed import Arrival, SandboxedSource

# Packets of one stream that wait to be decoded, with what each costs beside its data.
MAX_WAITING_BYTES = 16 * 1024**2
_PACKET_COST = 512
# Data decoded between two words on how far decoding has come.
_PROGRESS_BYTES = 64 * 1024
# Decoders hold back a frame while so many packets pass at most; what is known of older ones is forgotten.
_MAX_DELAY_PACKETS = 256


@dataclass(frozen=True)
class _Fed:
    """What is known of a packet; the attributes are those of `Packet`."""

    pts_seconds: float | None
    arrived_seconds: float
    capture_time_nanoseconds: int
    cost: int


class PacketSource(SandboxedSource):
    """A live stream of packets, decoded in a process of their own. The time base is one nanosecond."""

    def __init__(self, image_size: int, limits: VideoLimits, *, frames_ahead: int = 4) -> None:
        """See `SandboxedSource`; of the limits, those on single frames hold."""
        super().__init__(image_size, limits.of_live_stream(), frames_ahead=frames_ahead)
        self._codec = ""
        self._is_fragment = False
        self._known: dict[int, _Fed] = {}
        self._fed = 0
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._taken_packets = 0
        self._untold_bytes = 0
        self._progress = asyncio.Event()

    async def _start(self) -> DecoderProcess:
        return await DecoderProcess.start(
            "packets", image_size=self._image_size, slots=self._frames_ahead, limits=self._limits
        )

    async def feed(self, packet: Packet) -> None:
        """Take the next packet; waits while `MAX_WAITING_BYTES` of them are not decoded.

        Dropped once the decoder has had its last word, which `next_frame` gives.

        Raises:
            FailedPrecondition: After `end`.
            InvalidArgument: The codec is missing, or changed.
        """
        if self._ended:
            raise FailedPrecondition("packet: the video was ended; nothing may follow end_of_video")
        self._check(packet)
        arrived = time.monotonic()
        cost = len(packet.data) + _PACKET_COST
        while self._waiting_bytes and self._waiting_bytes + cost > MAX_WAITING_BYTES and not self._over:
            self._room.clear()
            await self._room.wait()
        if self._over:
            return
        if not self._codec:
            self._codec, self._is_fragment = packet.codec, packet.is_fragment
            self._decoder.write(
                "codec",
                packet.extradata,
                name=packet.codec,
                is_fragment=packet.is_fragment,
                size=len(packet.extradata),
            )
        index, self._fed = self._fed, self._fed + 1
        self._known[index] = _Fed(packet.pts_seconds, arrived, packet.capture_time_nanoseconds, cost)
        self._waiting_bytes += cost
        # Without waiting for the process to read, which it may not do before frames are taken: it is bounded above.
        self._decoder.write("packet", packet.data, index=index, size=len(packet.data))

    def _check(self, packet: Packet) -> None:
        if not self._codec:
            if not packet.codec:
                raise InvalidArgument.of("packet.codec", f"is not set; the first packet names it: {_names()}")
            return
        if packet.codec and packet.codec != self._codec:
            raise InvalidArgument.of(
                "packet.codec", f"is {packet.codec}, but the stream began as {self._codec}; open another one for it"
            )
        if packet.is_fragment != self._is_fragment:
            raise InvalidArgument.of("packet.is_fragment", "changed; it must be the same in all packets of a stream")

    async def _receive(self, *expected: str) -> messages.Message:
        while (message := await super()._receive(*expected, "taken"))["type"] == "taken":
            self._on_decoded(message)
        return message

    def _on_decoded(self, message: messages.Message) -> None:
        index = message.get("index")
        if not isinstance(index, int):
            raise self._failed(DataLoss("the decoding process said of no packet that it was taken"))
        known = self._known.get(index)
        if known is not None:
            self._waiting_bytes -= known.cost
            self._known.pop(index - _MAX_DELAY_PACKETS, None)
            self._room.set()
            self._taken_packets = index + 1
            self._untold_bytes += known.cost
            if self._untold_bytes >= _PROGRESS_BYTES:
                self._progress.set()

    async def packets_taken(self) -> int:
        """Wait until a good deal more was decoded; packets, since the start, that wait no longer."""
        await self._progress.wait()
        self._progress.clear()
        self._untold_bytes = 0
        return self._taken_packets

    def _arrival_of(self, index: int, pts: int) -> Arrival:
        known = self._known.get(pts)
        if known is None:
            return super()._arrival_of(index, round(index * NANOSECONDS / DEFAULT_RATE))
        seconds = index / DEFAULT_RATE if known.pts_seconds is None else known.pts_seconds
        return Arrival(index, round(seconds * NANOSECONDS), known.arrived_seconds, known.capture_time_nanoseconds)

    def _on_taken(self) -> None:
        self._decoder.write("free")

    def _finished(self) -> None:
        super()._finished()
        self._room.set()


def _names() -> str:
    return ", ".join(PACKET_DECODERS)
