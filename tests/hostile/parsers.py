"""The parsers that read bytes from outside, each as a function of bytes that may raise nothing.

``python -m tests.hostile.fuzz`` has atheris look for bytes that break one; those that did are kept in `SEEDS`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from masklet.errors import MaskletError
from masklet.v1 import tracking_pb2
from masklet_server.budgets.message_size import check_structure
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, check, check_data, decode
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import MessageError, Setup, decode_from_decoder
from masklet_server.video.sandbox.answers import AnswerParser

SIDE = 40
_SETUP = Setup("packets", 32, 2, 4096, VideoLimits())


def run_lengths(data: bytes) -> None:
    """A mask in COCO's run-lengths: either an error that the client can understand, or a mask of the right size."""
    mask = EncodedMask(MaskEncoding.COCO_RLE, SIDE, SIDE, data)
    try:
        check(mask, max_bytes=2**20, max_pixels=SIDE * SIDE)
        pixels = decode(mask)
    except MaskletError:
        return
    assert pixels.shape == (SIDE, SIDE)


def png(data: bytes) -> None:
    """The header of a mask as a PNG; the rest is read in a sandbox."""
    with contextlib.suppress(MaskletError):
        check_data(EncodedMask(MaskEncoding.PNG, SIDE, SIDE, data))


def decoder_message(data: bytes) -> None:
    """A line that a decoder writes, as a message and as an answer."""
    with contextlib.suppress(MessageError):
        decode_from_decoder(data)
    with contextlib.suppress(MessageError):
        AnswerParser(_SETUP).parse(data)


def structure(data: bytes) -> None:
    """A message in protobuf's encoding, before it is read. Lengths may reach beyond its end."""
    try:
        check_structure(data, tracking_pb2.TrackRequest.DESCRIPTOR)
    except MaskletError:
        return


PARSERS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (run_lengths, png, decoder_message, structure)
}

SEEDS: dict[str, list[bytes]] = {
    "run_lengths": [b"", b"0", b"`" * 20, b"oooooooo0", b"P" * 7, b"\xff\x80", b"n0" * 3000, b"Th0"],
    "png": [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x01\0\0\0\0"],
    "decoder_message": [
        b"",
        b"\n",
        b"{}\n",
        b'{"type": "FrameDecoded"}\n',
        b'{"type": "FrameDecoded", "slot": 1e999}\n',
        b"[" * 10000 + b"\n",
        b'{"type": "FrameDecoded", "slot": ' + b"9" * 5000 + b"}\n",
        b"\xff\xfe\n",
    ],
    "structure": [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\x80" * 20, b"\x2a\x02\x2a\x00", b"\xc2\x00\x80\x80 "],
}
"""For each parser, bytes that are worth trying in every run of the tests."""
