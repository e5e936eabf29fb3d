"""Compressed messages: what the server answers, and what gRPC's core answers itself before the server sees anything."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import pytest

from masklet.v1 import common_pb2, image_pb2
from tests.hostile.attacks.connections import ask_by_hand
from tests.support.rpc import Edge, edge

MIB = 2**20
# The only answers of INTERNAL that are not ours: gRPC's core gives them for bytes that are not what their headers say.
# The server's metrics count such a call as one without a message.
CORES_OWN = "INTERNAL"


def packed(size: int) -> bytes:
    """A request with a picture of so many zeros, by gzip."""
    picture = common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=bytes(size))
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(image_pb2.SegmentImageRequest(picture=picture).SerializeToString()) + packer.flush()


def counted(running: Edge, code: str) -> float:
    return running.sample("rpcs_total", method="masklet.v1.TrackingService/SegmentImage", code=code)


@pytest.mark.parametrize(
    ("data", "encoding", "status"),
    [
        (packed(1000), "gzip", "OK"),
        (packed(4 * MIB), "gzip", "RESOURCE_EXHAUSTED"),  # 4 kB on the wire
        (b"\x1f\x8b" + bytes(99), "gzip", CORES_OWN),
        (packed(1000)[:-12], "gzip", CORES_OWN),
        (packed(1000), "br", CORES_OWN),
    ],
)
async def test_each_ends_by_itself_and_is_no_bug_of_ours(data: bytes, encoding: str, status: str) -> None:
    async with edge(max_message_bytes=MIB) as running:
        target = SimpleNamespace(address=running.server.address)
        assert await ask_by_hand(target, data, encoding=encoding) == status
        assert await ask_by_hand(target, packed(1000)) == "OK"  # the others are untouched
        assert counted(running, "INTERNAL") == counted(running, "UNKNOWN") == 0
