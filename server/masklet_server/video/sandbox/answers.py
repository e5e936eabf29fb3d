"""The one place where what a decoding process says is read. Nothing about it is trusted.

`messages` checks the form of each message. Here each is compared with what the process was asked to do, and with the
limits, before anything is done with its numbers: memory is taken for pictures of the sizes that it tells.
"""

from __future__ import annotations

from masklet_server.video.messages import (
    EndOfFrames,
    FrameDecoded,
    FrameUndecoded,
    FromDecoder,
    MessageError,
    PacketDecoded,
    Setup,
    VideoOpened,
    decode_from_decoder,
)
from masklet_server.video.schema import TakeBytes


class UnexpectedAnswer(MessageError):  # noqa: N818 - a verdict on a process, not a fault of the program
    """A message has the right form, but comes at the wrong time, or has a number that cannot be.

    Attributes:
        kind: The message's class.
    """

    def __init__(self, message: FromDecoder, why: str) -> None:
        super().__init__(f"{type(message).__name__}: {why}")
        self.kind = type(message).__name__


# Modes in which frames may differ in size.
_ANY_SIZE = ("live pictures", "packets", "single pictures")


class AnswerParser:
    """Reads the messages of one decoding process, in order.

    Args:
        setup: What the process was asked to do.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._limits = setup.limits
        self._opened: VideoOpened | None = None
        self._frames = 0
        self._undecoded = 0
        self._ended = False

    def parse(self, line: bytes, take_bytes: TakeBytes = bytes) -> FromDecoder:
        """The message of one line.

        Raises:
            UnexpectedAnswer: It comes at the wrong time, or has a number that cannot be.
            MessageError: It is no message.
        """
        message = decode_from_decoder(line, take_bytes)
        if why := self._fault(message):
            raise UnexpectedAnswer(message, why)
        return message

    def _fault(self, message: FromDecoder) -> str:
        """What is wrong with a message; empty if nothing is. Counts it, too."""
        if self._ended:
            return "came after the last one"
        match message:
            case VideoOpened():
                return self._fault_of_video(message)
            case FrameDecoded():
                return self._fault_of_frame(message)
            case FrameUndecoded():
                self._undecoded += 1
                return self._fault_of_count(self._undecoded)
            case PacketDecoded() if self._setup.mode != "packets":
                return "belongs to another kind of video"
            case EndOfFrames():
                self._ended = True
                return "came before any frame" if self._opened is None and self._setup.mode != "single pictures" else ""
        return ""

    def _fault_of_video(self, message: VideoOpened) -> str:
        if self._setup.mode == "single pictures" or self._opened is not None:
            return "came twice, or where there is no video"
        self._opened = message
        return self._fault_of_size(message.info.height, message.info.width)

    def _fault_of_frame(self, message: FrameDecoded) -> str:
        slot, self._frames = self._frames % self._setup.slots, self._frames + 1
        if message.slot != slot:
            return "is not in the slot whose turn it is"
        if self._setup.mode == "single pictures":
            fits = message.height * message.width * 3 <= self._setup.slot_bytes
            return self._fault_of_size(message.height, message.width) if fits else "does not fit into its slot"
        if self._opened is None:
            return "came before the video was opened"
        size, info = (message.height, message.width), self._opened.info
        if self._setup.mode not in _ANY_SIZE and size != (info.height, info.width):
            return "has another size than the video"
        return self._fault_of_size(*size) or self._fault_of_count(self._frames)

    def _fault_of_size(self, height: int, width: int) -> str:
        is_right = max(height, width) <= self._limits.max_side and height * width <= self._limits.max_frame_pixels
        return "" if is_right else f"{width}x{height} pixels are more than the limits allow"

    def _fault_of_count(self, count: int) -> str:
        return "there are more than the limits allow" if 0 < self._limits.max_frames < count else ""
