"""Reads from a container how long the file should be, to find out whether it was cut off.

For most containers FFmpeg takes the end of the file for the end of the video, whatever the container says. Runs in the
decoding process.
"""

from __future__ import annotations

from collections.abc import Callable

ReadAt = Callable[[int, int], bytes]

_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_TS_PACKET = 188
_TS_SYNC = 0x47


def declared_length(container: str, read_at: ReadAt, size: int) -> int:
    """Bytes that a file of `size` bytes should have; `size` if its container does not say.

    Args:
        container: FFmpeg's name of the container.
        read_at: Reads from an offset (first argument) up to so many bytes (second argument).
        size: Bytes that the file has.
    """
    names = container.split(",")
    if "mp4" in names:
        return _boxes(read_at, size)
    if "matroska" in names:
        return _segment(read_at, size)
    if "avi" in names:
        return _riff(read_at, size)
    if "mpegts" in names:
        return _packets(read_at, size)
    return size


def _boxes(read_at: ReadAt, size: int) -> int:
    """ISO/IEC 14496-12, 4.2: a chain of boxes, each with its length."""
    position = 0
    while position < size:
        head = read_at(position, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0 means up to the end of the file; anything else is no box
            return size
        position += length
    return position


def _segment(read_at: ReadAt, size: int) -> int:
    """RFC 8794 and RFC 9559: a header, then a segment with a length, which may be unknown."""
    head = read_at(0, 4096)
    if not head.startswith(_EBML_HEADER):
        return size
    length, width = _vint(head[4:])
    start = 4 + width + (length or 0)
    if head[start : start + 4] != _SEGMENT:
        return size
    length, width = _vint(head[start + 4 :])
    return size if length is None else start + 4 + width + length


def _vint(data: bytes) -> tuple[int | None, int]:
    """A number whose width is coded in its first byte, and that width. The number is None if all its bits are set."""
    if not data or not data[0]:
        return None, 1
    width = 9 - data[0].bit_length()
    bits = 7 * width
    value = int.from_bytes(data[:width], "big") & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), width


def _riff(read_at: ReadAt, size: int) -> int:
    head = read_at(0, 8)
    return 8 + int.from_bytes(head[4:8], "little") if head[:4] == b"RIFF" else size


def _packets(read_at: ReadAt, size: int) -> int:
    """A transport stream has no length; but its last packet must be whole."""
    synchronous = all(read_at(position, 1) == bytes([_TS_SYNC]) for position in (0, _TS_PACKET, 2 * _TS_PACKET))
    return -(-size // _TS_PACKET) * _TS_PACKET if synchronous else size
