"""Messages with very many small fields are refused before objects are made of them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masklet.errors import InvalidArgument
from masklet.v1 import common_pb2, image_pb2, tracking_pb2
from masklet_server.budgets.message_size import MAX_STRUCTURE_BYTES, StructureCheck, bounded, check_structure

PICTURE = common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=bytes(10**7))
POINT = common_pb2.Point(x=1.5, y=2.5, label=common_pb2.POINT_LABEL_FOREGROUND)
Request = image_pb2.SegmentImageRequest
Track = tracking_pb2.TrackRequest


def check(message: Any) -> None:
    check_structure(message.SerializeToString(), message.DESCRIPTOR)


@pytest.mark.parametrize(
    "message",
    [
        Request(picture=PICTURE, prompts=[image_pb2.SegmentPrompt(points=[POINT] * 256)] * 64),
        Request(picture=PICTURE, prompts=[image_pb2.SegmentPrompt(mask=common_pb2.Mask(data=bytes(10**6)))] * 8),
        Request(image_id="x" * 10**6),
        Track(video_chunk=bytes(10**7)),
        Track(frame=PICTURE),
    ],
)
def test_what_is_large_by_its_content_is_allowed(message: Any) -> None:
    check(message)


@pytest.mark.parametrize(
    "message",
    [
        Request(picture=PICTURE, prompts=[image_pb2.SegmentPrompt()] * 10**6),
        Request(picture=PICTURE, prompts=[image_pb2.SegmentPrompt(points=[POINT] * 10**5)]),
        Track(prompt=common_pb2.Prompt(object_id=1, points=[POINT] * 10**5)),
        Track(propagate=tracking_pb2.Propagate(object_ids=range(1, 10**6))),
    ],
)
def test_what_is_large_by_its_fields_is_refused_soon(message: Any) -> None:
    data = message.SerializeToString()
    began = time.process_time()
    with pytest.raises(InvalidArgument, match="beside pictures, video, masks and texts"):
        check_structure(data, message.DESCRIPTOR)
    assert time.process_time() - began < 1


def test_unknown_fields_count() -> None:
    with pytest.raises(InvalidArgument):
        check_structure(b"\xfa\x7f\x01a" * MAX_STRUCTURE_BYTES, Request.DESCRIPTOR)
    with pytest.raises(InvalidArgument):
        check_structure(b"\xfa\x7f\x80\x80\x40" + bytes(2**20), Request.DESCRIPTOR)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_checked_to_the_end(data: bytes) -> None:
    check_structure(data, Track.DESCRIPTOR)


def test_a_check_can_be_done_bit_by_bit() -> None:
    message = Request(picture=PICTURE, prompts=[image_pb2.SegmentPrompt(points=[POINT] * 256)] * 8)
    data = message.SerializeToString()
    at_once = StructureCheck(data, message.DESCRIPTOR)
    assert at_once.look_at(10**6)
    by_bits = StructureCheck(data, message.DESCRIPTOR)
    looks = 1
    while not by_bits.look_at(100):
        looks += 1
        assert by_bits.fields == 100 * (looks - 1)
    assert by_bits.fields == at_once.fields
    assert looks == -(-at_once.fields // 100)


def test_a_check_by_bits_refuses_what_a_check_at_once_refuses() -> None:
    message = Request(prompts=[image_pb2.SegmentPrompt()] * 10**6)
    by_bits = StructureCheck(message.SerializeToString(), message.DESCRIPTOR)
    with pytest.raises(InvalidArgument, match="fields, beside pictures"):
        all(by_bits.look_at(1000) or True for _ in range(1000))


def test_small_messages_are_only_read() -> None:
    read = bounded(Request.FromString, Request.DESCRIPTOR)
    assert read(Request(image_id="a").SerializeToString()).image_id == "a"
    with pytest.raises(InvalidArgument):
        read(Request(prompts=[image_pb2.SegmentPrompt()] * 10**6).SerializeToString())
