"""Pictures as messages: a file's bytes as they are, or raw pixels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from masklet.errors import InvalidArgument
from masklet.v1 import common_pb2

MAX_MESSAGE_BYTES = 32 * 1024**2
"""Bytes that one gRPC message may have; clients and servers agree on it."""
# Room beside the picture for the rest of its message.
_MAX_PICTURE_BYTES = MAX_MESSAGE_BYTES - 64 * 1024

Layout = Literal["rgb24", "bgr24", "gray8", "nv12"]
"""What the bytes of an array mean: ``uint8[H, W, 3]`` RGB or BGR, ``uint8[H, W]``, or ``uint8[H * 3 / 2, W]`` NV12."""

_FORMATS = {
    "rgb24": common_pb2.PICTURE_FORMAT_RGB24,
    "bgr24": common_pb2.PICTURE_FORMAT_BGR24,
    "gray8": common_pb2.PICTURE_FORMAT_GRAY8,
    "nv12": common_pb2.PICTURE_FORMAT_NV12,
}


def encoded_to_wire(data: bytes, *, field: str) -> common_pb2.Picture:
    """A JPEG, PNG or WebP file as a message.

    Args:
        data: The bytes of the file.
        field: The name of the argument that errors blame.

    Raises:
        InvalidArgument: The file is empty, or larger than a message may be.
    """
    return _checked(common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=data), field)


def pixels_to_wire(pixels: npt.NDArray[np.uint8], *, field: str, layout: Layout | None = None) -> common_pb2.Picture:
    """Raw pixels as a message.

    Args:
        pixels: An array of the shape that the layout says, as `check_pixels` accepts it.
        field: The name of the argument that errors blame.
        layout: None: "rgb24" or "gray8", as the shape says.

    Raises:
        InvalidArgument: The layout is unknown or does not go with the shape, or the picture is larger than a message
            may be.
    """
    if layout is None:
        layout = "gray8" if pixels.ndim == 2 else "rgb24"
    if layout not in _FORMATS:
        raise InvalidArgument.of("layout", f"is {layout!r}, must be one of {', '.join(_FORMATS)}")
    if (pixels.ndim == 3) is not (layout in ("rgb24", "bgr24")):
        raise InvalidArgument.of(field, f"has the shape {list(pixels.shape)}, which {layout} pictures don't have")
    height, width = pixels.shape[:2]
    if layout == "nv12":
        if height % 3 or width % 2:
            raise InvalidArgument.of(field, f"has the shape {list(pixels.shape)}, must be [H * 3 / 2, W], both even")
        height = height * 2 // 3
    picture = common_pb2.Picture(format=_FORMATS[layout], data=pixels.tobytes(), height=height, width=width)
    return _checked(picture, field)


def check_pixels(array: npt.NDArray[Any], *, field: str = "image") -> npt.NDArray[np.uint8]:
    """Check that an array is ``uint8[H, W, 3]`` or ``uint8[H, W]``.

    Args:
        array: What a caller gave.
        field: The name of the argument that errors blame.

    Returns:
        The array itself.

    Raises:
        InvalidArgument: It has another shape or dtype; the message says how to convert it.
    """
    if array.dtype != np.uint8:
        raise InvalidArgument.of(field, f"is an array of {array.dtype}, must be uint8 with values from 0 to 255")
    if array.ndim == 3 and array.shape[2] == 4:
        raise InvalidArgument.of(field, "has four channels; drop the alpha channel: image[:, :, :3]")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise InvalidArgument.of(field, f"has the shape {list(array.shape)}, must be [H, W, 3] (RGB) or [H, W] (gray)")
    return array


def _checked(picture: common_pb2.Picture, field: str) -> common_pb2.Picture:
    if not picture.data:
        raise InvalidArgument.of(field, "is empty")
    if len(picture.data) > _MAX_PICTURE_BYTES:
        raise InvalidArgument.of(
            field,
            f"takes {len(picture.data) / 1024**2:.1f} MiB, but a message may hold 32 MiB; "
            "send it as a JPEG or PNG file, or scale it down",
        )
    return picture
