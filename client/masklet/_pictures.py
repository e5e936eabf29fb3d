"""Pictures, however a caller holds them: as a file, as bytes, as a Pillow image, as an array."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from masklet._endpoint import MAX_MESSAGE_BYTES
from masklet.errors import InvalidArgument
from masklet.v1 import common_pb2

if TYPE_CHECKING:
    from PIL.Image import Image

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[np.uint8] | Image"
"""A file's path, its bytes, an array ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]`` (gray), or a Pillow image."""

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


def picture_to_wire(source: Any, *, field: str = "image", layout: Layout | None = None) -> common_pb2.Picture:
    """The picture as a message: a file's bytes as they are, pixels raw.

    Args:
        source: The picture.
        field: What errors name.
        layout: Of an array; by default RGB or gray, as its shape says.

    Raises:
        InvalidArgument: It is no picture, or larger than a message may be; the message names `field`.
        OSError: The file cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        picture = _encoded(Path(source).read_bytes())
    elif isinstance(source, bytes):
        picture = _encoded(source)
    else:
        picture = _raw(_pixels(source, field)) if layout is None else _laid_out(source, layout, field)
    if not picture.data:
        raise InvalidArgument.of(field, "is empty")
    if len(picture.data) > _MAX_PICTURE_BYTES:
        raise InvalidArgument.of(
            field,
            f"takes {len(picture.data) / 1024**2:.1f} MiB and a message may hold 32 MiB; "
            "send it as a JPEG or PNG file, or scale it down",
        )
    return picture


def load_rgb(source: Any, *, field: str = "image") -> npt.NDArray[np.uint8]:
    """The picture as ``uint8[H, W, 3]`` RGB, turned as its EXIF orientation says: what the server sees.

    Raises:
        InvalidArgument: It is no picture.
        OSError: The file cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _decoded(Path(source).read_bytes(), field)
    if isinstance(source, bytes):
        return _decoded(source, field)
    pixels = _pixels(source, field)
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def check_pixels(array: npt.NDArray[Any], *, field: str = "image") -> npt.NDArray[np.uint8]:
    """Hold an array against ``uint8[H, W, 3]`` or ``uint8[H, W]``.

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


def _pixels(source: Any, field: str) -> npt.NDArray[np.uint8]:
    if isinstance(source, np.ndarray):
        return check_pixels(source, field=field)
    from PIL import Image

    if isinstance(source, Image.Image):
        return np.asarray(source if source.mode == "L" else source.convert("RGB"))
    raise InvalidArgument.of(
        field, f"must be a path, bytes, a Pillow image or a uint8 array, not {type(source).__qualname__}"
    )


def _encoded(data: bytes) -> common_pb2.Picture:
    return common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=data)


def _raw(pixels: npt.NDArray[np.uint8]) -> common_pb2.Picture:
    gray = pixels.ndim == 2
    return common_pb2.Picture(
        format=common_pb2.PICTURE_FORMAT_GRAY8 if gray else common_pb2.PICTURE_FORMAT_RGB24,
        data=pixels.tobytes(),
        height=pixels.shape[0],
        width=pixels.shape[1],
    )


def _laid_out(source: Any, layout: Layout, field: str) -> common_pb2.Picture:
    if layout not in _FORMATS:
        raise InvalidArgument.of("layout", f"is {layout!r}, must be one of {', '.join(_FORMATS)}")
    if not isinstance(source, np.ndarray):
        raise InvalidArgument.of("layout", f"is for arrays; leave it out for {type(source).__qualname__}")
    pixels = check_pixels(source, field=field)
    if (pixels.ndim == 3) is not (layout in ("rgb24", "bgr24")):
        raise InvalidArgument.of(field, f"has the shape {list(pixels.shape)}, which {layout} pictures don't have")
    height, width = pixels.shape[:2]
    if layout == "nv12":
        if height % 3 or width % 2:
            raise InvalidArgument.of(field, f"has the shape {list(pixels.shape)}, must be [H * 3 / 2, W], both even")
        height = height * 2 // 3
    return common_pb2.Picture(format=_FORMATS[layout], data=pixels.tobytes(), height=height, width=width)


def _decoded(data: bytes, field: str) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise InvalidArgument.of(field, "is no picture that can be read; JPEG, PNG and WebP can") from error
