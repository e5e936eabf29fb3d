"""Masks of objects in picture files, as people and programs draw them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from masklet._media.pictures import damage_named
from masklet.errors import InvalidArgument

if TYPE_CHECKING:
    from PIL.Image import Image

_Mask = npt.NDArray[np.bool_]
_Values = npt.NDArray[np.uint32]

# From here on a pixel counts as white: noise of JPEG and smooth edges lie on both sides of it.
_WHITE_FROM = 128
# A picture with more colours than this is a photograph, or has smooth edges.
_MAX_OBJECTS = 255
# JPEG gives gray pixels a little colour.
_GRAY_NOISE = 24


def read_mask_file(path: str | os.PathLike[str]) -> dict[int, _Mask]:
    """The masks in a picture file, ``bool[H, W]`` each, by the objects' ids.

    What counts, in this order:

    - Black, white and shades between them are one mask: white is the object, whatever the file's palette says. Noise of
      JPEG and smooth edges are cut at the middle.
    - Gray values below 128 are ids, as annotation tools write them.
    - A palette of colours, such as DAVIS's, holds ids: the palette's index of a pixel is its object's id.
    - In a picture of colours, DAVIS's colours stand for its ids; any other colour for red + 256 green + 65536 blue.
    - If only the transparency varies, opaque pixels are the object. So they are in a cut-out.

    Args:
        path: A PNG, or another file that Pillow can read.

    Raises:
        InvalidArgument: The file is no picture, is damaged, has nothing but background, or is a photograph.
        OSError: The file cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = os.fspath(path)
    try:
        with damage_named("mask", name), Image.open(Path(path)) as opened:
            picture = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError:
        raise InvalidArgument.of("mask", f"{name} is not a picture; give a PNG as large as the video") from None
    opaque = _opaque(picture)
    values = _values(picture, opaque, name)
    ids = [int(one) for one in np.unique(values) if one]
    if not ids:
        raise InvalidArgument.of("mask", f"{name} has no foreground pixel")
    return {one: values == one for one in ids}


def _opaque(picture: Image) -> _Mask | None:
    """Which pixels are opaque; None if all are, or none."""
    if picture.mode not in ("LA", "RGBA", "PA", "La", "RGBa") and "transparency" not in picture.info:
        return None
    opaque = np.asarray(picture.convert("RGBA").getchannel("A")) >= _WHITE_FROM
    return opaque if 0 < opaque.sum() < opaque.size else None


def _values(picture: Image, opaque: _Mask | None, name: str) -> _Values:
    """The object's id of each pixel, 0 for the background."""
    if opaque is not None:
        colours = np.unique(np.asarray(picture.convert("RGBA"))[opaque][:, :3], axis=0)
        if len(colours) == 1 or len(colours) > _MAX_OBJECTS:
            return opaque.astype(np.uint32)
    if picture.mode == "P" and (indices := _palette_indices(picture)) is not None:
        return _seen(indices, opaque)
    if picture.mode.startswith("I"):
        return _seen(_of_gray(np.asarray(picture).astype(np.int64)), opaque)
    pixels = np.asarray(picture.convert("RGB")).astype(np.int64)
    spread = int((pixels.max(axis=2) - pixels.min(axis=2)).max())
    # Small numbers that differ are ids in red, green and blue, and no noise.
    if spread == 0 or (spread <= _GRAY_NOISE and pixels.max() >= _WHITE_FROM):
        return _seen(_of_gray(np.asarray(picture.convert("L")).astype(np.int64)), opaque)
    return _seen(_of_colours(pixels, name), opaque)


def _seen(values: npt.NDArray[Any], opaque: _Mask | None) -> _Values:
    return np.where(opaque, values, 0).astype(np.uint32) if opaque is not None else values.astype(np.uint32)


def _palette_indices(picture: Image) -> npt.NDArray[Any] | None:
    """The indices of a picture with a palette, if they are ids; None if its colours are what counts."""
    indices = np.asarray(picture)
    palette = np.array(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    used = np.unique(indices)
    if used.max() >= len(palette):
        return indices
    colours = palette[used]
    if len(np.unique(colours, axis=0)) < len(used):
        return indices  # the palette tells the objects not apart
    is_gray = (colours.max(axis=1) - colours.min(axis=1)).max() <= _GRAY_NOISE
    first_is_black = used[0] == 0 and not colours[0].any()
    return indices if first_is_black and not is_gray else (None if is_gray or used[0] == 0 else indices)


def _of_gray(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    highest = int(values.max())
    if highest < _WHITE_FROM:
        return np.maximum(values, 0)  # ids
    if highest > np.iinfo(np.uint8).max:
        return (values > highest // 2).astype(np.int64)  # 16 bits a pixel
    shades = np.unique(values[values > 0])
    return (values > 0 if len(shades) == 1 else values >= _WHITE_FROM).astype(np.int64)


def _of_colours(pixels: npt.NDArray[np.int64], name: str) -> npt.NDArray[np.int64]:
    numbers = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
    used = np.unique(numbers)
    if len(used) > _MAX_OBJECTS + 1:
        raise InvalidArgument.of(
            "mask", f"{name} has {len(used)} colours; a mask has one for each object, or is black and white"
        )
    known = davis_colours()
    davis = {int(r) + 256 * int(g) + 65536 * int(b): index for index, (r, g, b) in enumerate(known)}
    if set(used.tolist()) <= davis.keys():
        lookup = np.array([davis[int(one)] for one in used])
        return cast("npt.NDArray[np.int64]", lookup[np.searchsorted(used, numbers)])
    return numbers


def davis_colours() -> npt.NDArray[np.uint8]:
    """``uint8[256, 3]``: PASCAL VOC's colour map, which DAVIS uses.

    The bits of an index are spread over the high bits of the channels.
    """
    index = np.arange(256)
    channels = [sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)
