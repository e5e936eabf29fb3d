"""What a message costs before it is read: many small fields take a hundred times their bytes once they are objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from masklet.errors import InvalidArgument

# Bytes of a message without pixels, video, masks and texts. As many prompts and points as are allowed have 300 kB.
MAX_STRUCTURE_BYTES = 512 * 1024
# Fields of a message. As many prompts and points as are allowed have 70,000.
MAX_FIELDS = 128 * 1024
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5
_LEAVES = (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING)
_WRONG = -1

T = TypeVar("T")


class StructureCheck:
    """Makes sure that a message is large because of what its fields hold, and not because there are so many.

    It can be done bit by bit, because many fields take tenths of a second. What is malformed is left to the reader.

    Attributes:
        fields: How many fields have been looked at.

    Args:
        data: The encoded message.
        descriptor: Of the message.
    """

    def __init__(self, data: bytes, descriptor: Descriptor) -> None:
        self._data = data
        self._parts = [(0, len(data), descriptor)]
        self._left = MAX_STRUCTURE_BYTES
        self.fields = 0

    def look_at(self, fields: int) -> bool:
        """Look at so many further fields; returns whether the whole message has been looked at.

        Raises:
            InvalidArgument: There are too many fields, or too many bytes are not in fields of bytes or text.
        """
        data, parts, left = self._data, self._parts, self._left
        until = self.fields + fields
        while parts:
            position, end, of = parts.pop()
            by_number = of.fields_by_number
            while position < end:
                if self.fields >= until:
                    parts.append((position, end, of))
                    self._left = left
                    return False
                self.fields += 1
                start = position
                tag, position = _varint(data, position, end)
                kind = tag & 7
                if kind == _SIZED:
                    size, position = _varint(data, position, end)
                    field = by_number.get(tag >> 3)
                    if position + size > end:
                        parts.clear()
                        return True
                    if field is not None and field.type in _LEAVES:
                        start += size
                    elif field is not None and field.message_type is not None:
                        parts.append((position, position + size, field.message_type))
                        start += size
                    position += size
                else:
                    position = _end_of_number(data, position, end, kind)
                    if position == _WRONG:
                        parts.clear()
                        return True
                left -= position - start
                if left < 0 or self.fields > MAX_FIELDS:
                    raise _too_many()
        return True


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
    """Check a whole message; see `StructureCheck`.

    Raises:
        InvalidArgument: There are too many fields, or too many bytes are not in fields of bytes or text.
    """
    StructureCheck(data, descriptor).look_at(MAX_FIELDS + 1)


def _too_many() -> InvalidArgument:
    return InvalidArgument(
        f"the message has more than {MAX_STRUCTURE_BYTES} bytes, or {MAX_FIELDS} fields, beside pictures, video, masks "
        "and texts; send fewer prompts, points or numbers in one"
    )


def _end_of_number(data: bytes, position: int, end: int, kind: int) -> int:
    """Where the number at a position ends."""
    if kind == _VARINT:
        return _varint(data, position, end)[1]
    if kind == _FOUR_BYTES:
        return position + 4
    return position + 8 if kind == _EIGHT_BYTES else _WRONG


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The number at a position, and the position after it. The number is 0 where the data ends within it."""
    value = data[position] if position < end else 0
    if value < 0x80:  # nearly always
        return value, min(position + 1, end)
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
