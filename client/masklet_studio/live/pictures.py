"""Pictures of a live source, as they go to the server, to the page and into a recording; and what is found on them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import PIL.Image

from masklet import ObjectResult
from masklet.errors import InvalidArgument
from masklet.rle import Rle

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


@dataclass(frozen=True, eq=False)
class LivePrompt:
    """What a person has said of an object, on a picture that they saw.

    Attributes:
        object_id: The object.
        number: The picture's number.
        points: x, y and 1 or 0 of each click.
        box: x0, y0, x1, y1; None where there is none.
        mask: Its run-lengths; None where there is none. A mask is what the studio remembers, and nobody's word.
    """

    object_id: int
    number: int
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: Rle | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What the server has found on a picture.

    Attributes:
        picture: The picture.
        objects: Results by object. Where `is_new` is false, only those that have changed.
        is_new: Whether this is the first result of the picture; else a click has changed it afterwards.
        prompts: What was said of objects on this picture.
    """

    picture: Picture
    objects: Mapping[int, ObjectResult]
    is_new: bool
    prompts: Sequence[LivePrompt] = ()


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
