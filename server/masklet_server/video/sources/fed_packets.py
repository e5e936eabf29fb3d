"""What is known of the packets of one stream between their arrival and the frames that they give."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from masklet_server.video.packet import Packet

# Packets of one stream that wait at the decoder, with what each costs beside its data.
MAX_WAITING_BYTES = 16 * 1024**2
PACKET_COST = 512
# Data that are decoded between two reports of how far decoding has come.
PROGRESS_BYTES = 64 * 1024
# A decoder holds back a frame while at most so many packets pass; what is known of older packets is forgotten.
_MAX_DELAY_PACKETS = 256


@dataclass(frozen=True)
class FedPacket:
    """What is known of a packet.

    Attributes:
        pts_seconds: As the client gave it.
        capture_time_nanoseconds: As the client gave it.
        arrived_seconds: When it arrived, by `time.monotonic`.
        cost: Bytes that it takes while it waits.
    """

    pts_seconds: float | None
    capture_time_nanoseconds: int
    arrived_seconds: float
    cost: int

    @classmethod
    def of(cls, packet: Packet, arrived_seconds: float) -> FedPacket:
        """What is known of a packet when it arrives."""
        cost = len(packet.data) + PACKET_COST
        return cls(packet.pts_seconds, packet.capture_time_nanoseconds, arrived_seconds, cost)


class FedPackets:
    """The packets of one stream that were sent to the decoder: bounds those that wait there, and knows how far it is.

    Attributes:
        waiting_bytes: What the packets cost that wait at the decoder.

    Args:
        first: Number of the first packet.
    """

    def __init__(self, first: int = 0) -> None:
        self.waiting_bytes = 0
        self._known: dict[int, FedPacket] = {}
        self._count = self._decoded = first
        self._unreported_bytes = 0
        self._progress = asyncio.Event()

    def __len__(self) -> int:
        """Packets of which something is known."""
        return len(self._known)

    def find(self, index: int) -> FedPacket | None:
        """The packet of that number, if it is known still."""
        return self._known.get(index)

    def has_room_for(self, packet: FedPacket) -> bool:
        """Whether the packet may wait at the decoder, too."""
        return not self.waiting_bytes or self.waiting_bytes + packet.cost <= MAX_WAITING_BYTES

    def add(self, packet: FedPacket) -> int:
        """Let a packet wait at the decoder; returns its number."""
        index, self._count = self._count, self._count + 1
        self._known[index] = packet
        self.waiting_bytes += packet.cost
        return index

    def on_decoded(self, index: int) -> None:
        """The packet of that number was decoded; a number that is not known, or was told before, means nothing."""
        fed = self._known.get(index)
        if fed is None or index < self._decoded:
            return
        self.waiting_bytes -= fed.cost
        self._known.pop(index - _MAX_DELAY_PACKETS, None)
        self._decoded = index + 1
        self._unreported_bytes += fed.cost
        if self._unreported_bytes >= PROGRESS_BYTES:
            self._progress.set()

    async def progress(self) -> int:
        """Wait until `PROGRESS_BYTES` more were decoded; returns how many packets, since the start, were decoded."""
        await self._progress.wait()
        self._progress.clear()
        self._unreported_bytes = 0
        return self._decoded
