"""Messages between server and decoding process: what is written is what is read, and junk is one error."""

from __future__ import annotations

import dataclasses
import io
import json
from fractions import Fraction
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import (
    MAX_LINE_BYTES,
    MIN_MEMORY_BYTES,
    Channel,
    DecodePacket,
    DecodePicture,
    DecodingFailed,
    EndOfFrames,
    EndOfInput,
    ErrorKind,
    FrameDecoded,
    FromDecoder,
    MessageError,
    Mode,
    OpenCodec,
    PacketDecoded,
    Redecode,
    Seek,
    Setup,
    SlotFree,
    ToDecoder,
    UploadArrived,
    VideoOpened,
    decode_from_decoder,
    decode_to_decoder,
    encode,
)

natural = st.integers(0, 2**63 - 1)
integer64 = st.integers(-(2**63), 2**63 - 1)
size = st.integers(1, 2**31 - 1)
seconds = st.floats(0, 2.0**63)
text = st.text(max_size=200)
payload = st.binary(max_size=200)
limits = st.builds(
    VideoLimits,
    *[st.integers(0, 2**62)] * 4,
    st.floats(0, 1e9),
    st.integers(0, 2**62),
    st.integers(MIN_MEMORY_BYTES, 2**62),
    st.integers(0, 2**31),
    st.integers(0, 2**31),
    st.floats(0, 1e9),
)
seek = st.builds(Seek, integer64, integer64)
redecode = st.builds(Redecode, natural, natural, st.none() | seek)
info = st.builds(VideoInfo, size, size, st.floats(0, 2.0**31), seconds, natural, text, text, st.integers(0, 270))
time_base = st.builds(Fraction, size, size)
to_decoder: st.SearchStrategy[ToDecoder] = st.one_of(
    st.builds(Setup, st.sampled_from(get_args(Mode)), natural, size, natural, limits, st.none() | redecode),
    st.builds(UploadArrived, natural),
    st.builds(DecodePicture, st.sampled_from(["encoded", "nv12"]), natural, natural, payload, natural, integer64),
    st.builds(OpenCodec, text, st.booleans(), payload),
    st.builds(DecodePacket, natural, payload),
    st.builds(SlotFree),
    st.builds(EndOfInput),
)
from_decoder: st.SearchStrategy[FromDecoder] = st.one_of(
    st.builds(VideoOpened, info, time_base),
    st.builds(FrameDecoded, natural, integer64, size, size, seconds, st.integers(0, 2**32 - 1), st.booleans()),
    st.builds(PacketDecoded, natural),
    st.builds(EndOfFrames),
    st.builds(DecodingFailed, st.sampled_from(get_args(ErrorKind)), st.text(max_size=2000), text),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def read(line: bytes, following: bytes = b"") -> ToDecoder:
    return Channel(io.BytesIO(line + following), io.BytesIO(), decode_to_decoder).receive()


@given(to_decoder)
def test_messages_to_the_decoder_come_as_they_were(message: ToDecoder) -> None:
    line, following = encode(message)
    assert line.count(b"\n") == 1
    assert read(line, following) == message


@given(from_decoder)
def test_messages_from_the_decoder_come_as_they_were(message: FromDecoder) -> None:
    line, following = encode(message)
    assert (line.count(b"\n"), following) == (1, b"")
    assert len(line) < MAX_LINE_BYTES, "or nobody could read it"
    assert decode_from_decoder(line) == message


@given(st.lists(to_decoder, max_size=5))
def test_a_channel_keeps_messages_and_their_bytes_apart(given_messages: list[ToDecoder]) -> None:
    pipe = io.BytesIO()
    writing = Channel(io.BytesIO(), pipe, decode_from_decoder)
    for message in given_messages:
        writing.send(message)
    pipe.seek(0)
    reading = Channel(pipe, io.BytesIO(), decode_to_decoder)
    assert [reading.receive() for _ in given_messages] == given_messages
    with pytest.raises(EOFError):
        reading.receive()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_one_error(line: bytes) -> None:
    with pytest.raises(MessageError):
        decode_from_decoder(line)
    with pytest.raises(MessageError):
        decode_to_decoder(line, bytes)


@given(anything)
def test_any_json_is_a_message_or_one_error(value: Any) -> None:
    with pytest.raises(MessageError):
        decode_from_decoder(json.dumps(value).encode())


@given(from_decoder, st.data())
def test_a_message_with_one_field_changed_is_another_one_or_one_error(message: FromDecoder, data: Any) -> None:
    fields = json.loads(encode(message)[0])
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(anything)
    try:
        changed = decode_from_decoder(json.dumps(fields).encode())
    except MessageError:
        return
    assert decode_from_decoder(encode(changed)[0]) == changed, "what was let through keeps all rules"


@pytest.mark.parametrize("line", [b"[" * 60_000, b"1" * 60_000, b'{"type":' * 9000, b"\xff\xfe", b"", b"\n", b"null"])
def test_json_that_is_made_to_do_harm(line: bytes) -> None:
    with pytest.raises(MessageError):
        decode_from_decoder(line)


FRAME = {
    "type": "FrameDecoded",
    "slot": 0,
    "pts": -5,
    "height": 4,
    "width": 3,
    "decode_seconds": 0.5,
    "checksum": 9,
    "is_key": False,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slot": -1}, "FrameDecoded.slot: must be between 0 and"),
        ({"is_key": 1}, "FrameDecoded.is_key: must be of type bool, not int"),
        ({"slot": True}, "FrameDecoded.slot: must be of type int, not bool"),
        ({"slot": 1.0}, "FrameDecoded.slot: must be of type int, not float"),
        ({"slot": None}, "FrameDecoded.slot: must be of type int, not NoneType"),
        ({"pts": 2**63}, "FrameDecoded.pts: must be between"),
        ({"height": 0}, "FrameDecoded.height: must be between 1 and"),
        ({"width": 2**31}, "FrameDecoded.width: must be between 1 and"),
        ({"decode_seconds": "1"}, "FrameDecoded.decode_seconds: must be a number, not str"),
        ({"decode_seconds": float("nan")}, "FrameDecoded.decode_seconds: must be a finite number"),
        ({"decode_seconds": 10**400}, "FrameDecoded.decode_seconds: must be a finite number"),
        ({"decode_seconds": -1}, "FrameDecoded.decode_seconds: must be between 0 and"),
        ({"checksum": 2**32}, "FrameDecoded.checksum: must be between 0 and 4294967295"),
        ({"more": 1}, "FrameDecoded has no field 'more'"),
        ({"type": "SlotFree"}, "no type, or one that is not expected here"),
        ({"type": ["FrameDecoded"]}, "no type, or one that is not expected here"),
    ],
)
def test_every_number_of_a_frame_is_checked(changes: dict[str, Any], said: str) -> None:
    assert decode_from_decoder(json.dumps(FRAME).encode()) == FrameDecoded(0, -5, 4, 3, 0.5, 9)
    with pytest.raises(MessageError) as caught:
        decode_from_decoder(json.dumps({**FRAME, **changes}).encode())
    assert said in str(caught.value)


@pytest.mark.parametrize("name", sorted(FRAME.keys() - {"type"}))
def test_no_field_may_be_missing(name: str) -> None:
    fields = {key: value for key, value in FRAME.items() if key != name}
    with pytest.raises(MessageError, match=rf"FrameDecoded\.{name} is missing"):
        decode_from_decoder(json.dumps(fields).encode())


@pytest.mark.parametrize("base", [[0, 1], [1, 0], [-1, 1], [1, 2**31], [1, 2, 3], [1.0, 2], [True, 2], 1, "1/2", None])
def test_a_time_base_is_two_positive_numbers(base: Any) -> None:
    line, _ = encode(VideoOpened(VideoInfo(4, 3), Fraction(1, 25)))
    fields = json.loads(line)
    assert fields["time_base"] == [1, 25]
    with pytest.raises(MessageError, match=r"VideoOpened\.time_base: must be a numerator and a denominator"):
        decode_from_decoder(json.dumps({**fields, "time_base": base}).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [("height", 0), ("frame_rate", -1.0), ("duration_seconds", float("inf")), ("frame_count", -1), ("codec", 5),
     ("container", "x" * 201), ("rotation_degrees", 271)],
)  # fmt: skip
def test_what_is_told_of_a_video_is_checked(field: str, value: Any) -> None:
    fields = json.loads(encode(VideoOpened(VideoInfo(4, 3), Fraction(1, 25)))[0])
    fields["info"][field] = value
    with pytest.raises(MessageError, match=rf"VideoOpened.info: VideoInfo.{field}: must "):
        decode_from_decoder(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "message",
    [
        FrameDecoded(-1, 0, 4, 3),
        FrameDecoded(0, 0, 4, 3, float("nan")),
        DecodingFailed("Internal", "x" * 2001),
        DecodingFailed("Nonsense", "x"),  # type: ignore[arg-type]
        PacketDecoded("1"),  # type: ignore[arg-type]
        VideoOpened(VideoInfo(0, 3), Fraction(1)),
    ],
)
def test_the_writing_side_checks_as_well(message: FromDecoder) -> None:
    with pytest.raises(MessageError, match=type(message).__name__):
        encode(message)


def test_bytes_are_not_waited_for_before_their_number_is_checked() -> None:
    line, following = encode(DecodePacket(1, b"abc"))
    assert (json.loads(line)["data"], following) == (3, b"abc")
    for count in (-1, 2**31, 1.5, "3"):
        with pytest.raises(MessageError, match=r"DecodePacket\.data"):
            read(json.dumps({"type": "DecodePacket", "index": 1, "data": count}).encode() + b"\n")
    with pytest.raises(EOFError):
        read(line, b"ab")


def test_a_line_without_an_end_takes_no_memory_without_end() -> None:
    stream = io.BytesIO(b"x" * (MAX_LINE_BYTES + 1000))
    with pytest.raises(MessageError, match="more than 65536 bytes"):
        Channel(stream, io.BytesIO(), decode_from_decoder).receive()
    assert stream.tell() == MAX_LINE_BYTES
    with pytest.raises(EOFError):
        Channel(io.BytesIO(b'{"type": "End'), io.BytesIO(), decode_from_decoder).receive()


def test_a_setup_with_too_little_memory_can_neither_be_made_nor_read() -> None:
    little = VideoLimits(decoder_memory_bytes=MIN_MEMORY_BYTES - 1)
    with pytest.raises(ValueError, match="decoder_memory_bytes is 536870911; set it to at least 536870912"):
        Setup.for_frames("clip", 32, 4, little)
    setup = Setup.for_frames("clip", 32, 4, VideoLimits(decoder_memory_bytes=MIN_MEMORY_BYTES))
    assert setup.slot_bytes == 32 * 32 * 3
    fields = json.loads(encode(setup)[0])
    fields["limits"]["decoder_memory_bytes"] -= 1
    with pytest.raises(MessageError, match="decoder_memory_bytes"):
        read(json.dumps(fields).encode() + b"\n")


@pytest.mark.parametrize("kind", [*get_args(ToDecoder), *get_args(FromDecoder)])
def test_messages_cannot_be_changed(kind: type) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
