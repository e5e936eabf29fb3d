"""Whether a file was cut off, by what it promises of its video."""

from __future__ import annotations

import struct

import pytest

from masklet_media.container_end import Contents, what_is_missing
from tests.support.clips import make_clip


def missing(data: bytes, container: str, *, promised: int = 0, found: int = 0) -> str:
    return what_is_missing(
        Contents(container, promised, found, len(data), lambda offset, count: data[offset : offset + count])
    )


def box(kind: bytes, size: int = 8) -> bytes:
    return struct.pack(">I4s", size, kind) + bytes(max(0, size - 8))


START = box(b"ftyp", 16) + box(b"moov", 32)
FRAGMENT = box(b"moof", 40) + box(b"mdat", 100)


@pytest.mark.parametrize(("data", "expected"), [
    (START + FRAGMENT, ""),
    (START + FRAGMENT + b"\n", ""),
    (START + FRAGMENT + b"\x7fmaker's own block" * 100, ""),
    (START + FRAGMENT + struct.pack(">I4s", 2**31, b"\x89abc"), ""),
    (START + FRAGMENT + FRAGMENT[:-1], "it has 327 bytes where its container says 328"),
    (START + FRAGMENT + box(b"moof", 40), "its last fragment has no data"),
    (START + FRAGMENT + box(b"mfra", 24), ""),
    (START + FRAGMENT + box(b"mfra", 24)[:-4], ""),
    (START + FRAGMENT + struct.pack(">I4sQ", 1, b"mdat", 500), "it has 204 bytes where its container says 688"),
])  # fmt: skip
def test_fragmented_mp4(data: bytes, expected: str) -> None:
    assert missing(data, "mov,mp4,m4a,3gp,3g2,mj2") == expected


def test_an_index_counts_more_than_any_length() -> None:
    data = START + box(b"mdat", 100)[:-50]
    assert missing(data, "mov,mp4", promised=16, found=16) == ""
    assert missing(data, "mov,mp4", promised=16, found=9) == "its index lists 16 frames, of which 9 are there"


def test_matroska_lacks_something_only_if_it_lacks_clusters() -> None:
    data = make_clip("matroska", "ffv1", frames=4)
    assert missing(data, "matroska,webm") == ""
    cues = data.rindex(b"\x1c\x53\xbb\x6b")
    assert missing(data[: cues + 6], "matroska,webm") == "", "the table behind the last cluster is cut"
    assert "where its container says" in missing(data[: cues - 10], "matroska,webm")
    assert missing(data[: cues - 10] + b"\n", "unknown") == ""


def test_avi_needs_two_signs() -> None:
    data = b"RIFF" + struct.pack("<I", 1000) + b"AVI "
    assert missing(data, "avi", promised=16, found=16) == "", "the size is wrong and the frames are there"
    assert missing(data, "avi", promised=16, found=9) == "its index lists 16 frames, of which 9 are there"
    assert missing(data + bytes(1000), "avi", promised=10_000, found=9) == "", "the header was never completed"


def test_a_transport_stream_has_no_length() -> None:
    data = make_clip("mpegts")
    assert missing(data[:-100], "mpegts") == ""
