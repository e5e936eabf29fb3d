"""Finds out whether a video file was cut off: whether it promises frames that are not there.

FFmpeg takes the end of a file for the end of the video, whatever the container says. A length alone proves nothing:
cameras append blocks of their own to MP4 files, and size fields of AVI files are often wrong. So what counts is what
the container promises of the video itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ReadAt = Callable[[int, int], bytes]

# Top-level boxes of MP4 (ISO/IEC 14496-12), of which the first three hold or describe the video.
_VIDEO_BOXES = (b"moov", b"moof", b"mdat")
_OTHER_BOXES = (
    *(b"ftyp", b"styp", b"free", b"skip", b"wide", b"uuid", b"sidx", b"ssix", b"mfra", b"meta", b"pdin", b"emsg"),
    *(b"prft", b"udta", b"pnot", b"PICT", b"junk"),
)
_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_CLUSTER = b"\x1f\x43\xb6\x75"
_MAX_PARTS = 200_000


@dataclass(frozen=True)
class Contents:
    """What is known of a file once all of it has been read.

    Attributes:
        container: FFmpeg's name of the container.
        promised: Frames of the video by the container's index; 0 if it has none.
        found: Packets of the video that were there.
        size: Bytes of the file.
        read_at: Reads from an offset (first argument) up to so many bytes (second argument).
    """

    container: str
    promised: int
    found: int
    size: int
    read_at: ReadAt


def what_is_missing(contents: Contents) -> str:
    """What of the video is not there, in words; empty if nothing is known to be missing."""
    names = contents.container.split(",")
    if "mp4" in names:
        return _missing_of_mp4(contents)
    if "matroska" in names:
        return _missing_of_matroska(contents)
    if "avi" in names:
        return _missing_of_avi(contents)
    return ""


def _missing_of_mp4(contents: Contents) -> str:
    """An index lists all frames. Without one, the file is a chain of fragments, of which the last may not be whole."""
    if contents.promised:
        return _too_few(contents)
    position, last = 0, b""
    while position < contents.size:
        head = contents.read_at(position, 16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind not in _VIDEO_BOXES + _OTHER_BOXES:
            return ""  # what follows is none of the video's
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0 means up to the end of the file; anything else is no box
            return ""
        if kind in _VIDEO_BOXES:
            last = kind
            if position + length > contents.size:
                return _shorter(contents, position + length)
        position += length
    return "its last fragment has no data" if last == b"moof" else ""


def _too_few(contents: Contents) -> str:
    if contents.found >= contents.promised:
        return ""
    return f"its index lists {contents.promised} frames, of which {contents.found} are there"


def _shorter(contents: Contents, length: int) -> str:
    return f"it has {contents.size} bytes where its container says {length}"


def _missing_of_matroska(contents: Contents) -> str:
    """RFC 8794 and RFC 9559: a header, then a segment with a length, which may be unknown, made of clusters and tables.

    Only a missing cluster, or a part of one, is a part of the video.
    """
    head = contents.read_at(0, 4096)
    if not head.startswith(_EBML_HEADER):
        return ""
    length, width = _vint(head[4:])
    start = 4 + width + (length or 0)
    if head[start : start + 4] != _SEGMENT:
        return ""
    length, width = _vint(head[start + 4 :])
    position = start + 4 + width
    if length is None or position + length <= contents.size:
        return ""
    end, kind = position + length, b""
    for _ in range(_MAX_PARTS):
        if position >= contents.size:
            break
        part = contents.read_at(position, 16)
        kind = part[: _id_width(part)]
        length, width = _vint(part[len(kind) :])
        if length is None:
            return ""
        position += len(kind) + width + length
    return _shorter(contents, end) if kind == _CLUSTER else ""


def _id_width(data: bytes) -> int:
    return max(1, 9 - data[0].bit_length())


def _vint(data: bytes) -> tuple[int | None, int]:
    """A number whose width is coded in its first byte, and that width. The number is None if all its bits are set."""
    if not data or not data[0]:
        return None, 1
    width = 9 - data[0].bit_length()
    bits = 7 * width
    value = int.from_bytes(data[:width], "big") & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), width


def _missing_of_avi(contents: Contents) -> str:
    """Both the size and the number of frames in the header may be wrong, and then they do not go together."""
    head = contents.read_at(0, 8)
    length = 8 + int.from_bytes(head[4:8], "little") if head[:4] == b"RIFF" else 0
    return _too_few(contents) if contents.size < length else ""
