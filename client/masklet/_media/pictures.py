"""Pictures, however a caller holds them: as a file, as bytes, as a Pillow image, as an array."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from masklet._protocol.pictures import Layout, check_pixels, encoded_to_wire, pixels_to_wire
from masklet.errors import InvalidArgument
from masklet.v1 import common_pb2

if TYPE_CHECKING:
    from PIL.Image import Image

PictureLike: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[np.uint8] | Image"
"""A file's path, its bytes, an array ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]`` (gray), or a Pillow image."""


def picture_to_wire(picture: Any, *, field: str = "image", layout: Layout | None = None) -> common_pb2.Picture:
    """The picture as a message: a file's bytes as they are, pixels raw.

    Args:
        picture: A `PictureLike`.
        field: The name of the argument that errors blame.
        layout: Of an array; None: RGB or gray, as its shape says.

    Raises:
        InvalidArgument: It is no picture, or larger than a message may be.
        OSError: The file cannot be read.
    """
    if isinstance(picture, (str, os.PathLike)):
        return encoded_to_wire(Path(picture).read_bytes(), field=field)
    if isinstance(picture, bytes):
        return encoded_to_wire(picture, field=field)
    if layout is not None and not isinstance(picture, np.ndarray):
        raise InvalidArgument.of("layout", f"is for arrays; leave it out for {type(picture).__qualname__}")
    return pixels_to_wire(_pixels(picture, field), field=field, layout=layout)


def load_rgb(picture: Any, *, field: str = "image") -> npt.NDArray[np.uint8]:
    """The picture as ``uint8[H, W, 3]`` RGB, turned as its EXIF orientation says: what the server sees.

    Args:
        picture: A `PictureLike`.
        field: The name of the argument that errors blame.

    Raises:
        InvalidArgument: It is no picture.
        OSError: The file cannot be read.
    """
    if isinstance(picture, (str, os.PathLike)):
        return _decoded(Path(picture).read_bytes(), field)
    if isinstance(picture, bytes):
        return _decoded(picture, field)
    pixels = _pixels(picture, field)
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def _pixels(picture: Any, field: str) -> npt.NDArray[np.uint8]:
    if isinstance(picture, np.ndarray):
        return check_pixels(picture, field=field)
    from PIL import Image

    if isinstance(picture, Image.Image):
        return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    raise InvalidArgument.of(
        field, f"must be a path, bytes, a Pillow image or a uint8 array, not {type(picture).__qualname__}"
    )


def _decoded(data: bytes, field: str) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise InvalidArgument.of(field, "is not a picture that can be read; use JPEG, PNG or WebP") from error
