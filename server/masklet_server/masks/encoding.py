"""Masks as bytes: COCO run-lengths or PNG, both ways. Bytes from a client are checked before they cost memory."""

from __future__ import annotations

import enum
import io
import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from masklet.errors import InvalidArgument
from masklet_server.masks.runs import Runs

_PNG_HEADER = struct.Struct(">8s4x4sIIBB")  # signature, (length), "IHDR", width, height, bit depth, colour type
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY = 0
_MAX_CHARACTERS_A_RUN = 7  # five bits each: enough for every run below 2**34


class MaskEncoding(enum.Enum):
    """How a mask travels."""

    COCO_RLE = "coco_rle"
    PNG = "png"
    NONE = "none"


@dataclass(frozen=True)
class EncodedMask:
    """A mask as it travels.

    Attributes:
        encoding: What `data` is.
        height: Rows.
        width: Columns.
        data: COCO's compressed `counts`, or a one-channel 8-bit PNG; empty for `MaskEncoding.NONE`.
    """

    encoding: MaskEncoding
    height: int
    width: int
    data: bytes

    def __repr__(self) -> str:
        return f"EncodedMask({self.encoding.value}, {self.width}x{self.height}, {len(self.data)} bytes)"


def encode(runs: Runs, encoding: MaskEncoding) -> EncodedMask:
    """Encode a mask."""
    return EncodedMask(encoding, runs.height, runs.width, _ENCODERS[encoding](runs))


def _to_rle(runs: Runs) -> bytes:
    size = [runs.height, runs.width]
    counts: bytes = coco.frPyObjects({"size": size, "counts": runs.lengths.tolist()}, *size)["counts"]
    return counts


def _to_png(runs: Runs) -> bytes:
    _, data = cv2.imencode(".png", runs.mask * np.uint8(255))
    return data.tobytes()


def _to_nothing(runs: Runs) -> bytes:
    del runs
    return b""


_ENCODERS = {MaskEncoding.COCO_RLE: _to_rle, MaskEncoding.PNG: _to_png, MaskEncoding.NONE: _to_nothing}


def check(mask: EncodedMask, *, max_bytes: int, max_pixels: int) -> None:
    """Hold a client's mask against the limits, without looking into its data.

    Raises:
        InvalidArgument: It has no pixels, too many of them, too many bytes, or an encoding that prompts cannot have.
    """
    if mask.encoding is MaskEncoding.NONE:
        raise InvalidArgument.of("encoding", "a prompt's mask must be COCO_RLE or PNG")
    if mask.height < 1 or mask.width < 1:
        raise InvalidArgument.of("height", f"{mask.width}x{mask.height} pixels is no size; set height and width")
    if mask.height * mask.width > max_pixels:
        raise InvalidArgument.of("height", f"{mask.width}x{mask.height} is more than {max_pixels} pixels")
    if len(mask.data) > max_bytes:
        raise InvalidArgument.of("data", f"{len(mask.data)} bytes, at most {max_bytes} are allowed")


def check_data(mask: EncodedMask) -> None:
    """Read enough of a mask's data to know that it has the size it claims; no more memory than the data itself takes.

    Raises:
        InvalidArgument: The data is malformed or of another size.
    """
    if mask.encoding is MaskEncoding.COCO_RLE:
        _rle_runs(mask)
    else:
        _check_png_header(mask)


def decode(mask: EncodedMask) -> npt.NDArray[np.bool_]:
    """The mask as ``bool[H, W]``; to be called after `check`.

    Raises:
        InvalidArgument: The data is malformed or of another size.
    """
    if mask.encoding is MaskEncoding.COCO_RLE:
        return Runs(mask.height, mask.width, _rle_runs(mask)).mask
    _check_png_header(mask)
    try:
        with Image.open(io.BytesIO(mask.data), formats=["PNG"]) as image:
            return np.asarray(image) > 127
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:  # what Pillow raises on broken files
        raise InvalidArgument.of("data", f"is a broken PNG file: {error}") from error


def _rle_runs(mask: EncodedMask) -> npt.NDArray[np.int64]:
    """Lengths of the runs, background first (pycocotools' rleFrString), known to add up to the mask's pixels."""
    characters = np.frombuffer(mask.data, np.uint8).astype(np.int16) - 48
    if characters.size == 0 or characters.min() < 0 or characters.max() > 63:
        raise InvalidArgument.of("data", "is not COCO's compressed run-length encoding (characters '0' to 'o')")
    last = (characters & 32) == 0
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if not last[-1] or (ends - starts).max() >= _MAX_CHARACTERS_A_RUN:
        raise InvalidArgument.of("data", "is not COCO's compressed run-length encoding (a run is cut or too long)")
    place = np.arange(characters.size) - np.repeat(starts, ends - starts + 1)
    runs = np.add.reduceat((characters & 31).astype(np.int64) << (5 * place), starts)
    runs -= np.where(characters[ends] & 16, np.int64(1) << (5 * (ends - starts + 1)), 0)
    # From the fourth run on each is written as the difference to the one before the last.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    total, pixels = int(runs.sum()), mask.height * mask.width
    if runs.min() < 0 or runs.max() > pixels or total != pixels:  # the largest run is bounded: sums of any may wrap
        raise InvalidArgument.of(
            "data",
            f"runs make {total} pixels, but {mask.width}x{mask.height} has {pixels}; is this another size's mask?",
        )
    return runs


def _check_png_header(mask: EncodedMask) -> None:
    if len(mask.data) < _PNG_HEADER.size:
        raise InvalidArgument.of("data", "is not a PNG file")
    signature, chunk, width, height, depth, colour = _PNG_HEADER.unpack_from(mask.data)
    if signature != _PNG_SIGNATURE or chunk != b"IHDR":
        raise InvalidArgument.of("data", "is not a PNG file")
    if (depth, colour) != (8, _PNG_GRAY):
        raise InvalidArgument.of("data", "must be an 8-bit PNG of one channel (grayscale, no palette)")
    if (height, width) != (mask.height, mask.width):
        raise InvalidArgument.of(
            "data", f"the PNG is {width}x{height}, but height and width say {mask.width}x{mask.height}"
        )
