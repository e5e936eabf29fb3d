"""A picture of a live source, as it goes to the server, to the page and into a recording."""

from __future__ import annotations

import io
from dataclasses import dataclass

import PIL.Image

from masklet.errors import InvalidArgument

MAX_JPEG_BYTES = 8 << 20
MAX_SIDE = 1920
"""Pixels of the longer side of a picture. Larger ones are made smaller by whoever reads the camera."""


@dataclass(frozen=True)
class Picture:
    """One picture of a live source.

    Attributes:
        jpeg: The picture as JPEG; the server, the page and a recording get these same bytes.
        width: Columns.
        height: Rows.
        taken_nanoseconds: When it was taken, or when it arrived, by `time.time_ns`.
        pts_seconds: Seconds since the first picture of the source.
        number: Its number among the pictures of its live session, from 0; -1 while it has none.
    """

    jpeg: bytes
    width: int
    height: int
    taken_nanoseconds: int
    pts_seconds: float
    number: int = -1


def size_of_jpeg(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG file, from its header.

    Raises:
        InvalidArgument: It is no JPEG file, or too large.
    """
    if len(data) > MAX_JPEG_BYTES:
        raise InvalidArgument.of("picture", f"has {len(data)} bytes, the most is {MAX_JPEG_BYTES}")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            width, height = picture.size
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise InvalidArgument.of("picture", "is no JPEG file") from error
    if max(width, height) > MAX_SIDE:
        raise InvalidArgument.of(
            "picture", f"has {width} x {height} pixels, the longer side may have {MAX_SIDE}; send it smaller"
        )
    return width, height
