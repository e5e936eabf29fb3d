"""What server and decoding process say to each other: one frozen dataclass for each message.

They talk over two pipes. A message is one line of JSON: the name of its class and its fields. The bytes of a field of
type `Payload` follow the line. Pixels lie in shared memory beside the pipes, in slots that are used in turn.

Every message is checked when it is written and when it is read (see `schema`), on both sides: what a decoding process
says is not trusted, because it works on untrusted input. The decoding process imports this module: keep it free of
heavy imports.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Annotated, Any, Generic, Literal, TypeAlias, TypeVar, get_args

from masklet_server.video.formats import PictureFormat
from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.schema import (
    Integer64,
    Natural,
    Range,
    SchemaError,
    Seconds,
    ShortText,
    Size,
    TakeBytes,
    from_plain,
    to_plain,
)

MAX_LINE_BYTES = 64 * 1024
MAX_TEXT_CHARACTERS = 2000
# Python and FFmpeg's libraries alone take most of it.
MIN_MEMORY_BYTES = 512 * 1024**2

FORK = b"fork"  # the only message to the fork server

Mode: TypeAlias = Literal["clip", "pictures", "live pictures", "packets", "single pictures"]
ErrorKind: TypeAlias = Literal["InvalidArgument", "DataLoss", "ResourceExhausted", "Internal"]
Payload: TypeAlias = Annotated[bytes, Range(0, 2**31 - 1)]


class MessageError(ValueError):
    """A line is no message, or a message has a field that is wrong."""


# To the decoding process


@dataclass(frozen=True)
class Seek:
    """Where a clip is entered in its middle; times are in units of the clip's time base.

    Attributes:
        pts: Go to a key frame at or before this time.
        since: Leave out frames before this time.
    """

    pts: Integer64
    since: Integer64


@dataclass(frozen=True)
class Redecode:
    """A clip is decoded once more, from one of its frames on.

    Attributes:
        size: Bytes of the upload that have arrived; no more are waited for.
        skip: Frames to leave out at the start.
        seek: Enter the clip there, without decoding it from its start; None: from the start.
    """

    size: Natural
    skip: Natural = 0
    seek: Seek | None = None


@dataclass(frozen=True)
class Setup:
    """What the process shall do. It is the first message, and comes once.

    Attributes:
        mode: What is decoded. "pictures" have one size, "live pictures" may differ in size, and "single pictures" have
            nothing to do with one another: they keep their size, and an error ends none but its own picture.
        image_size: Side of the frames that come out; 0 for single pictures.
        slots: Slots in the shared memory.
        slot_bytes: Size of one slot.
        limits: What decoding may cost.
        redecode: The clip is decoded once more.

    Raises:
        ValueError: The memory limit is too low for any decoding.
    """

    mode: Mode
    image_size: Natural
    slots: Size
    slot_bytes: Natural
    limits: VideoLimits
    redecode: Redecode | None = None

    def __post_init__(self) -> None:
        if self.limits.decoder_memory_bytes < MIN_MEMORY_BYTES:
            raise ValueError(
                f"decoder_memory_bytes is {self.limits.decoder_memory_bytes}; set it to at least {MIN_MEMORY_BYTES}, "
                "which Python and FFmpeg need"
            )

    @classmethod
    def for_frames(
        cls, mode: Mode, image_size: int, slots: int, limits: VideoLimits, redecode: Redecode | None = None
    ) -> Setup:
        """Set up for frames of ``uint8[image_size, image_size, 3]``."""
        return cls(mode, image_size, slots, image_size * image_size * 3, limits, redecode)


@dataclass(frozen=True)
class UploadArrived:
    """So many bytes of the upload, from its start, are in the temporary file by now."""

    size: Natural


@dataclass(frozen=True)
class DecodePicture:
    """The next picture.

    Attributes:
        format: Encoded, or which raw format.
        height: Rows; raw formats only.
        width: Columns; raw formats only.
        data: The picture's bytes.
        index: Of the frame that it becomes.
        pts: Time stamp of that frame, in nanoseconds.
    """

    format: PictureFormat
    height: Natural
    width: Natural
    data: Payload
    index: Natural = 0
    pts: Integer64 = 0


@dataclass(frozen=True)
class OpenCodec:
    """Which codec the packets have; once, before the first packet.

    Attributes:
        name: One of `formats.PACKET_DECODERS`.
        is_fragment: Packets are cut anywhere, and not at access units.
        extradata: What the codec needs beforehand; may be empty.
        decoding: One of `formats.LATEST_DECODING`: what decoding leaves out.
    """

    name: ShortText
    is_fragment: bool
    extradata: Payload
    decoding: ShortText = "full"


@dataclass(frozen=True)
class DecodePacket:
    """The next packet and its number."""

    index: Natural
    data: Payload


@dataclass(frozen=True)
class SlotFree:
    """The oldest slot in use was copied, and may be written to again."""


@dataclass(frozen=True)
class EndOfInput:
    """The server will send no more video."""


ToDecoder: TypeAlias = Setup | UploadArrived | DecodePicture | OpenCodec | DecodePacket | SlotFree | EndOfInput


# From the decoding process


@dataclass(frozen=True)
class VideoOpened:
    """What is known of the video; once, before its first frame.

    Attributes:
        info: Describes the video.
        time_base: Seconds in a unit of the frames' time stamps.
    """

    info: VideoInfo
    time_base: Fraction


@dataclass(frozen=True)
class FrameDecoded:
    """One frame, or one single picture, lies in a slot.

    Attributes:
        slot: Number of the slot.
        pts: Time stamp in units of the time base. For packets, the index of the packet in which the frame begins.
        height: Rows of the frame as shown, before it was resized.
        width: Columns of the frame as shown.
        decode_seconds: What reading, decoding and resizing it took.
        checksum: CRC-32 of the pixels, for frames of clips.
        is_key: It can be decoded without any frame before it. Only of packets and clips.
    """

    slot: Natural
    pts: Integer64
    height: Size
    width: Size
    decode_seconds: Seconds = 0.0
    checksum: Annotated[int, Range(0, 2**32 - 1)] = 0
    is_key: bool = False


@dataclass(frozen=True)
class FrameUndecoded:
    """A frame that the clip has, and that cannot be decoded. Comes before the frame that follows it.

    Attributes:
        pts: Time stamp in units of the time base.
    """

    pts: Integer64


@dataclass(frozen=True)
class PacketDecoded:
    """The packet of this number was decoded, and takes no memory any longer."""

    index: Natural


@dataclass(frozen=True)
class EndOfFrames:
    """All frames have been sent; the process ends."""


@dataclass(frozen=True)
class DecodingFailed:
    """The input can't be decoded, or may not be.

    Attributes:
        kind: A class of `masklet.errors`.
        message: What is wrong, and what to do about it.
        field: The field of the request that is wrong, for InvalidArgument.
    """

    kind: ErrorKind
    message: Annotated[str, Range(0, MAX_TEXT_CHARACTERS)]
    field: ShortText = ""


FromDecoder: TypeAlias = VideoOpened | FrameDecoded | FrameUndecoded | PacketDecoded | EndOfFrames | DecodingFailed


# Lines

Received = TypeVar("Received")
_TO_DECODER: tuple[type[ToDecoder], ...] = get_args(ToDecoder)
_FROM_DECODER: tuple[type[FromDecoder], ...] = get_args(FromDecoder)


def encode(message: ToDecoder | FromDecoder) -> tuple[bytes, bytes]:
    """The line of a message, and the bytes that follow it, which may be none.

    Raises:
        MessageError: A field has a value that no message may have.
    """
    try:
        fields = to_plain(message)
    except SchemaError as error:
        raise MessageError(str(error)) from error
    line = json.dumps({"type": type(message).__name__, **fields}, separators=(",", ":"), allow_nan=False)
    payload = next((value for value in vars(message).values() if isinstance(value, bytes)), b"")
    return line.encode() + b"\n", payload


def decode_to_decoder(line: bytes, take_bytes: TakeBytes) -> ToDecoder:
    """The message of one line to a decoding process.

    Args:
        line: The line.
        take_bytes: Gives so many of the bytes that follow it.

    Raises:
        MessageError: The line is no such message.
    """
    return _decode(line, _TO_DECODER, take_bytes)


def decode_from_decoder(line: bytes, take_bytes: TakeBytes = bytes) -> FromDecoder:
    """The message of one line from a decoding process; no bytes follow any of these.

    Raises:
        MessageError: The line is no such message.
    """
    return _decode(line, _FROM_DECODER, take_bytes)


def _decode(line: bytes, kinds: tuple[type[Received], ...], take_bytes: TakeBytes) -> Received:
    try:
        plain: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MessageError("the line is not JSON") from error
    if not isinstance(plain, dict):
        raise MessageError("a message must be an object")
    name = plain.pop("type", None)
    kind = next((one for one in kinds if one.__name__ == name), None)
    if kind is None:
        raise MessageError("the message has no type, or one that is not expected here")
    try:
        return from_plain(kind, plain, take_bytes)
    except SchemaError as error:
        raise MessageError(str(error)) from error


class Channel(Generic[Received]):
    """Either end of the two pipes, for a thread that may block.

    Attributes:
        line_read_at: When the line of the last message was read, by `time.perf_counter`. Its bytes were read after it.

    Args:
        incoming: Where messages come from.
        outgoing: Where messages go.
        decode: `decode_to_decoder` or `decode_from_decoder`, whichever messages come in here.
    """

    def __init__(
        self, incoming: IO[bytes], outgoing: IO[bytes], decode: Callable[[bytes, TakeBytes], Received]
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._decode = decode
        self.line_read_at = 0.0

    def send(self, message: ToDecoder | FromDecoder) -> None:
        """Write one message.

        Raises:
            BrokenPipeError: The other side is gone.
            MessageError: A field has a value that no message may have.
        """
        line, payload = encode(message)
        self._outgoing.write(line)
        if payload:
            self._outgoing.write(payload)
        self._outgoing.flush()

    def receive(self) -> Received:
        """Wait for one message.

        Raises:
            EOFError: The other side is gone.
            MessageError: It sent something else.
        """
        line = self._incoming.readline(MAX_LINE_BYTES)
        self.line_read_at = time.perf_counter()
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise MessageError(f"the line has more than {MAX_LINE_BYTES} bytes")
        if not line.endswith(b"\n"):
            raise EOFError("the other side is gone")
        return self._decode(line, self._take_bytes)

    def _take_bytes(self, count: int) -> bytes:
        data = self._incoming.read(count)
        if len(data) != count:
            raise EOFError("the other side is gone")
        return data
