"""The decoding process's connection to the server: messages in and out, and pixels in shared memory."""

from __future__ import annotations

import mmap
from collections import deque
from typing import TypeAlias

from masklet_server.video.messages import (
    Channel,
    DecodePacket,
    EndOfInput,
    FrameDecoded,
    OpenCodec,
    Setup,
    SlotFree,
    ToDecoder,
    UploadArrived,
)
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.shown_frame import ShownFrame

ServerChannel: TypeAlias = Channel[ToDecoder]


class ServerConnection:
    """What the process has of the server: its pipes, the shared memory, and which slots of that are free.

    Attributes:
        channel: The pipes.
        limits: What decoding may cost.
        image_size: Side of the frames that come out.
        upload: The file that arrives, if a clip is decoded.
        packets: Packets, their codec and their end, that came while the process waited for a free slot. The server
            bounds their number.

    Args:
        channel: The pipes.
        setup: What the server wants.
        memory: The shared memory.
    """

    def __init__(self, channel: ServerChannel, setup: Setup, memory: mmap.mmap) -> None:
        self.channel = channel
        self.limits = setup.limits
        self.image_size = setup.image_size
        self.upload: ArrivingFile | None = None
        self.packets: deque[OpenCodec | DecodePacket | EndOfInput] = deque()
        self._setup = setup
        self._memory = memory
        self._free = setup.slots
        self._next = 0

    def receive_one(self) -> None:
        """Wait for one message of the server and act on it.

        Raises:
            ValueError: This message is not expected.
        """
        match self.channel.receive():
            case SlotFree():
                self._free += 1
            case UploadArrived(size) if self.upload is not None:
                self.upload.arrived = size
            case EndOfInput() if self.upload is not None:
                self.upload.complete = True
            case (OpenCodec() | DecodePacket() | EndOfInput()) as message if self._setup.mode == "packets":
                self.packets.append(message)
            case message:
                raise ValueError(f"unexpected message {type(message).__name__}")

    def put(self, pixels: bytes) -> int:
        """Write pixels into the next slot, waiting until it is free; returns the slot's number."""
        while not self._free:
            self.receive_one()
        return self._write(pixels)

    def put_now(self, pixels: bytes) -> int:
        """Write pixels into the next slot, which the server knows to be free; returns the slot's number."""
        self._free = self._setup.slots
        return self._write(pixels)

    def send_frame(self, frame: ShownFrame, slot: int, seconds: float, *, checksum: int = 0) -> None:
        """Tell the server that a slot has the pixels of a frame.

        Args:
            frame: The frame.
            slot: What `put` or `put_now` returned.
            seconds: How long it took to make.
            checksum: By which the frame is known again.
        """
        self.channel.send(FrameDecoded(slot, frame.pts, frame.height, frame.width, seconds, checksum, frame.is_key))

    def _write(self, pixels: bytes) -> int:
        if len(pixels) > self._setup.slot_bytes:
            raise ValueError(f"{len(pixels)} bytes do not fit a slot of {self._setup.slot_bytes}")
        slot = self._next
        start = slot * self._setup.slot_bytes
        self._memory[start : start + len(pixels)] = pixels
        self._next = (slot + 1) % self._setup.slots
        self._free -= 1
        return slot
