"""Messages that are passed on as they are."""

from __future__ import annotations


class RawMessage:
    """A message's bytes, which nobody has read.

    Attributes:
        data: The bytes.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def ByteSize(self) -> int:  # noqa: N802 - as Protobuf's messages have it
        """Number of the bytes."""
        return len(self.data)
