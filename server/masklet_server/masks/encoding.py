"""Masks as bytes: COCO run-lengths or PNG, to and from. Bytes from a client are checked before they cost memory.

A client's PNG is not decoded here, because image libraries read bytes from outside only in a sandbox; see
`masklet_server.masks.pool.MaskPool.decode`.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from masklet import rle
from masklet.errors import InvalidArgument
from masklet_server.masks.runs import Runs

_PNG_HEADER = struct.Struct(">8s4x4sIIBB")  # signature, (length), "IHDR", width, height, bit depth, colour type
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY = 0


class MaskEncoding(enum.Enum):
    """How a mask is encoded in a message."""

    COCO_RLE = "coco_rle"
    PNG = "png"
    NONE = "none"


@dataclass(frozen=True)
class EncodedMask:
    """A mask as it is sent in a message.

    Attributes:
        encoding: The format of `data`.
        height: Rows of the mask.
        width: Columns of the mask.
        data: COCO's compressed `counts`, or an 8-bit PNG of one channel; empty for `MaskEncoding.NONE`.
    """

    encoding: MaskEncoding
    height: int
    width: int
    data: bytes

    def __repr__(self) -> str:
        return f"EncodedMask({self.encoding.value}, {self.width}x{self.height}, {len(self.data)} bytes)"


def encode(runs: Runs, encoding: MaskEncoding) -> EncodedMask:
    """Encode a mask for a message."""
    return EncodedMask(encoding, runs.height, runs.width, _ENCODERS[encoding](runs))


def _to_rle(runs: Runs) -> bytes:
    return rle.write_counts(runs.lengths)


def _to_png(runs: Runs) -> bytes:
    _, data = cv2.imencode(".png", runs.mask * np.uint8(255))
    return data.tobytes()


def _to_nothing(runs: Runs) -> bytes:
    del runs
    return b""


_ENCODERS = {MaskEncoding.COCO_RLE: _to_rle, MaskEncoding.PNG: _to_png, MaskEncoding.NONE: _to_nothing}


def check(mask: EncodedMask, *, max_bytes: int, max_pixels: int) -> None:
    """Check a client's mask against the limits, without reading its data.

    Raises:
        InvalidArgument: The mask has no pixels, too many pixels or bytes, or an encoding that prompts cannot have.
    """
    if mask.encoding is MaskEncoding.NONE:
        raise InvalidArgument.of("encoding", "must be COCO_RLE or PNG in a prompt")
    if mask.height < 1 or mask.width < 1:
        raise InvalidArgument.of(
            "height", f"must be above 0, and so must width; the mask is {mask.width}x{mask.height}"
        )
    if mask.height * mask.width > max_pixels:
        raise InvalidArgument.of(
            "height", f"{mask.width}x{mask.height} is more than {max_pixels} pixels; send a smaller mask"
        )
    if len(mask.data) > max_bytes:
        raise InvalidArgument.of("data", f"has {len(mask.data)} bytes; at most {max_bytes} are allowed")


def check_data(mask: EncodedMask) -> None:
    """Check that a mask's data has the size that the mask claims; takes no memory to speak of.

    Raises:
        InvalidArgument: The data is malformed or of another size.
    """
    if mask.encoding is MaskEncoding.COCO_RLE:
        rle.check_counts(mask.data, mask.height, mask.width, field="data")
    else:
        _check_png_header(mask)


def decode(mask: EncodedMask) -> npt.NDArray[np.bool_]:
    """Decode run-lengths to ``bool[H, W]``; call `check` first.

    Raises:
        InvalidArgument: The data is malformed or of another size.
        ValueError: The mask is no COCO_RLE.
    """
    if mask.encoding is not MaskEncoding.COCO_RLE:
        raise ValueError(f"{mask.encoding} is not decoded in this process")
    return rle.paint_counts(mask.data, mask.height, mask.width, field="data")


def of_picture(mask: EncodedMask, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """The mask ``bool[H, W]`` of a PNG that was decoded.

    Args:
        mask: As the client has sent it.
        picture: ``uint8[h, w, 3]`` RGB; all three are the same, because the PNG has one channel.

    Raises:
        InvalidArgument: The picture has another size than the mask.
    """
    height, width, _ = picture.shape
    if (height, width) != (mask.height, mask.width):  # it has an orientation
        raise InvalidArgument.of(
            "data", f"the PNG is shown as {width}x{height}, but height and width say {mask.width}x{mask.height}"
        )
    return picture[..., 0] > 127


def _check_png_header(mask: EncodedMask) -> None:
    if len(mask.data) < _PNG_HEADER.size:
        raise InvalidArgument.of("data", "is not a PNG file; send one, or set another encoding")
    signature, chunk, width, height, depth, colour = _PNG_HEADER.unpack_from(mask.data)
    if signature != _PNG_SIGNATURE or chunk != b"IHDR":
        raise InvalidArgument.of("data", "is not a PNG file; send one, or set another encoding")
    if (depth, colour) != (8, _PNG_GRAY):
        raise InvalidArgument.of("data", "must be an 8-bit PNG of one channel (grayscale, no palette)")
    if (height, width) != (mask.height, mask.width):
        raise InvalidArgument.of(
            "data", f"the PNG is {width}x{height}, but height and width say {mask.width}x{mask.height}"
        )
