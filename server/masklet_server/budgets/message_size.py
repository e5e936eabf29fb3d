"""What a message costs before it is read: many small fields take a hundred times their bytes once they are objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from masklet.errors import InvalidArgument

# Bytes of a message without pixels, video, masks and texts. As many prompts and points as are allowed have 300 kB.
MAX_STRUCTURE_BYTES = 512 * 1024
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5
_LEAVES = (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING)

T = TypeVar("T")


def bounded(read: Callable[[bytes], T], descriptor: Descriptor) -> Callable[[bytes], T]:
    """A reader of messages that refuses those with too many small fields, before any object is made of them.

    Args:
        read: Makes a message of its bytes.
        descriptor: Of the message.
    """

    def checked(data: bytes) -> T:
        if len(data) > MAX_STRUCTURE_BYTES:
            check_structure(data, descriptor)
        return read(data)

    return checked


def check_structure(data: bytes, descriptor: Descriptor) -> None:
    """Make sure that a message is large because of what its fields hold, and not because there are so many.

    What is malformed is left to the reader.

    Raises:
        InvalidArgument: Too many of its bytes are not in fields of bytes or text.
    """
    left = MAX_STRUCTURE_BYTES
    parts = [(0, len(data), descriptor)]
    while parts:
        position, end, of = parts.pop()
        while position < end:
            start = position
            tag, position = _varint(data, position, end)
            kind = tag & 7
            if kind == _VARINT:
                _, position = _varint(data, position, end)
            elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
                position += 8 if kind == _EIGHT_BYTES else 4
            elif kind == _SIZED:
                size, position = _varint(data, position, end)
                if position + size > end:
                    return
                field = of.fields_by_number.get(tag >> 3)
                inner = None if field is None else field.message_type
                if inner is not None:
                    parts.append((position, position + size, inner))
                    start += size
                elif field is not None and field.type in _LEAVES:
                    start += size
                position += size
            else:
                return
            left -= position - start
            if left < 0:
                raise InvalidArgument(
                    f"the message has more than {MAX_STRUCTURE_BYTES} bytes beside pictures, video, masks and texts; "
                    "send fewer prompts, points or numbers in one"
                )


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The number at a position, and the position after it. The number is 0 where the data ends within it."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return 0, end


class RawMessage:
    """A message that is passed on as it is, and whose fields nobody reads here.

    Attributes:
        data: The bytes.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def ByteSize(self) -> int:  # noqa: N802 - as Protobuf's messages have it
        """Number of the message's bytes."""
        return len(self.data)
