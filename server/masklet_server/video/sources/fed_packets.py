"""What is known of the packets of one stream between their arrival and the frames that they give."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from masklet_server.video.packet import Packet

# Packets of one stream that wait to be decoded, with what each costs beside its data.
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


class FedPackets:
    """The packets of one stream: bounds those that wait to be decoded, and knows how far decoding has come.

    Attributes:
        waiting_bytes: What the packets cost that wait to be decoded.
    """

    def __init__(self) -> None:
        self.waiting_bytes = 0
        self._known: dict[int, FedPacket] = {}
        self._count = 0
        self._room = asyncio.Event()
        self._decoded = 0
        self._unreported_bytes = 0
        self._progress = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """Packets of which something is known."""
        return len(self._known)

    def find(self, index: int) -> FedPacket | None:
        """The packet of that number, if it is known still."""
        return self._known.get(index)

    async def wait_for_room(self, packet: Packet) -> None:
        """Wait until the packet may wait, too; returns at once if nothing is decoded any longer."""
        cost = _cost(packet)
        while self.waiting_bytes and self.waiting_bytes + cost > MAX_WAITING_BYTES and not self._closed:
            self._room.clear()
            await self._room.wait()

    def add(self, packet: Packet, arrived_seconds: float) -> int:
        """Let a packet wait; returns its number."""
        index, self._count = self._count, self._count + 1
        fed = FedPacket(packet.pts_seconds, packet.capture_time_nanoseconds, arrived_seconds, _cost(packet))
        self._known[index] = fed
        self.waiting_bytes += fed.cost
        return index

    def on_decoded(self, index: int) -> None:
        """The packet of that number was decoded; a number that is not known means nothing."""
        fed = self._known.get(index)
        if fed is None:
            return
        self.waiting_bytes -= fed.cost
        self._known.pop(index - _MAX_DELAY_PACKETS, None)
        self._room.set()
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

    def close(self) -> None:
        """Stop waiting for room, because nothing is decoded any longer."""
        self._closed = True
        self._room.set()


def _cost(packet: Packet) -> int:
    return len(packet.data) + PACKET_COST
