"""Pictures, however a caller holds them: as a file, as bytes, as a Pillow image, as an array."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from masklet._protocol.pictures import Layout, check_pixels, encoded_to_wire, pixels_to_wire
from masklet.errors import InvalidArgument, MaskletError
from masklet.v1 import common_pb2

if TYPE_CHECKING:
    from PIL.Image import Image

PictureLike: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[Any] | Image"
"""A file's path, its bytes, an array, or a Pillow image.

However it comes, it is the same picture: `masklet_media.rgb` has the rules for transparency, 16 bits and EXIF
orientation. An array is ``[H, W, 3]`` (RGB), ``[H, W, 4]`` (RGB and alpha) or ``[H, W]`` (gray), of uint8, uint16,
float32 or float64.
"""


# How files begin that servers decode themselves: JPEG, PNG, BMP, TIFF, GIF; WebP and AVIF are told by what follows.
_SERVERS_READ = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"GIF8")


_GRAY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def picture_to_wire(picture: Any, *, field: str = "image", layout: Layout | None = None) -> common_pb2.Picture:
    """The picture as a message: a file's bytes as they are, pixels raw.

    A file in a format that servers do not decode is decoded here, if Pillow can (HEIC needs the package pillow-heif).

    Args:
        picture: A `PictureLike`.
        field: The name of the argument that errors blame.
        layout: Of an array; None: RGB or gray, as its shape says.

    Raises:
        InvalidArgument: It is no picture, or larger than a message may be.
        OSError: The file cannot be read.
    """
    if isinstance(picture, (str, os.PathLike)):
        picture = Path(picture).read_bytes()
    if isinstance(picture, bytes):
        if not _is_read_by_servers(picture):
            with contextlib.suppress(InvalidArgument):  # the server says then what is wrong
                return pixels_to_wire(_decoded(picture, field), field=field)
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
        InvalidArgument: It is no picture, or damaged.
        OSError: The file cannot be read.
    """
    if isinstance(picture, (str, os.PathLike)):
        return _decoded(Path(picture).read_bytes(), field, os.fspath(picture))
    if isinstance(picture, bytes):
        return _decoded(picture, field)
    pixels = _pixels(picture, field)
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def _is_read_by_servers(data: bytes) -> bool:
    if data.startswith(_SERVERS_READ):
        return True
    return (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or data[4:12] in (b"ftypavif", b"ftypavis")


def _pixels(picture: Any, field: str) -> npt.NDArray[np.uint8]:
    if isinstance(picture, np.ndarray):
        return check_pixels(_plain(picture), field=field)
    from PIL import Image

    from masklet_media.rgb import to_rgb

    if isinstance(picture, Image.Image):
        pixels = np.asarray(to_rgb(picture))
        is_gray = picture.mode in _GRAY_MODES and "transparency" not in picture.info
        return pixels[..., 0] if is_gray else pixels  # a third of the bytes
    raise InvalidArgument.of(
        field, f"must be a path, bytes, a Pillow image or an array, not {type(picture).__qualname__}"
    )


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array as ``uint8[H, W, 3]`` or ``uint8[H, W]``, by the rules of `masklet_media.rgb`, if it is a picture."""
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in ((), (3,), (4,)):
        return array
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype in (np.float32, np.float64):
        array = _scaled(array)
    if array.dtype == np.uint8 and array.shape[2:] == (4,):
        from PIL import Image

        from masklet_media.rgb import flatten

        return np.asarray(flatten(Image.fromarray(array)))
    return array


def _scaled(array: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Numbers of any range as ``uint8``, as a file of them is read."""
    from masklet_media.rgb import gray_scale

    finite = np.nan_to_num(array.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    scale, shift = gray_scale(float(finite.min()), float(finite.max()))
    scaled: npt.NDArray[np.uint8] = np.clip(finite * np.float32(scale) + np.float32(shift), 0, 255).astype(np.uint8)
    return scaled


@contextlib.contextmanager
def damage_named(field: str, name: str) -> Iterator[None]:
    """Say which picture it was, where Pillow cannot decode one. That it is no picture at all is left to the caller.

    Args:
        field: The name of the argument that errors blame.
        name: The picture's file, or another word for it.

    Raises:
        InvalidArgument: The picture is damaged, or so large that Pillow refuses it.
        UnidentifiedImageError: It is no picture.
        OSError: The file cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (MaskletError, UnidentifiedImageError):
        raise
    except Image.DecompressionBombError as error:
        raise InvalidArgument.of(field, f"{name} is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidArgument.of(field, f"{name} is damaged: {error}") from error


def _decoded(data: bytes, field: str, name: str = "the picture") -> npt.NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    from masklet_media.rgb import to_rgb

    learn_heif()
    try:
        with damage_named(field, name), Image.open(io.BytesIO(data)) as image:
            return np.asarray(to_rgb(image))
    except UnidentifiedImageError as error:
        raise InvalidArgument.of(
            field, "is not a picture that can be read; use JPEG, PNG, WebP, TIFF, GIF or AVIF (HEIC needs pillow-heif)"
        ) from error


def learn_heif() -> None:
    """Let Pillow read HEIC, if the package for it is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
