"""Masks to look at and to keep: overlays, cut-outs, PNG files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from masklet._pictures import ImageSource, load_rgb
from masklet.errors import InvalidArgument

if TYPE_CHECKING:
    from PIL.Image import Image

Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

# Okabe and Ito's palette, told apart with any kind of colour vision: https://jfly.uni-koeln.de/color/
PALETTE: tuple[Colour, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
_DARK = np.array((20, 20, 20), np.uint8)
_MAX_INDEX = 255


def colour_of(object_id: int) -> Colour:
    """The colour that an object has in every picture."""
    return PALETTE[(object_id - 1) % len(PALETTE)]


def overlay(
    image: ImageSource, masks: Mapping[int, Mask], *, alpha: float = 0.4, outline: bool = True
) -> npt.NDArray[np.uint8]:
    """Draw masks over a picture: each object tinted in its own colour, with a crisp outline.

    Args:
        image: A path, a file's bytes, a Pillow image, or an array ``uint8[H, W, 3]`` (RGB) or ``uint8[H, W]``.
        masks: ``bool[H, W]`` for each object's id, as `FrameResult.masks` has them; higher ids lie on top.
        alpha: Strength of the tint, 0 to 1.
        outline: Draw the outlines too.

    Returns:
        ``uint8[H, W, 3]``, RGB; the input stays as it is.

    Raises:
        InvalidArgument: The picture cannot be read, or a mask has another size.
    """
    if not 0 <= alpha <= 1:
        raise InvalidArgument.of("alpha", f"is {alpha}, must lie between 0 and 1")
    canvas = np.array(load_rgb(image))
    for object_id in sorted(masks):
        mask = _checked(masks[object_id], canvas.shape[:2], f"masks[{object_id}]")
        _draw(canvas, mask, colour_of(object_id), alpha=alpha, outline=outline)
    return canvas


def cutout(image: ImageSource, mask: Mask) -> Image:
    """The object alone, as a Pillow image in RGBA with the background transparent.

    Args:
        image: As for `overlay`.
        mask: ``bool[H, W]``.

    Raises:
        InvalidArgument: The picture cannot be read, or the mask has another size.
    """
    from PIL import Image

    pixels = load_rgb(image)
    alpha = _checked(mask, pixels.shape[:2], "mask").astype(np.uint8) * 255
    return Image.fromarray(np.dstack([pixels, alpha]))


def save_mask(path: str | os.PathLike[str], mask: Mask) -> None:
    """Write a mask ``bool[H, W]`` as a PNG of one channel, 0 and 255.

    Raises:
        InvalidArgument: The mask is not two-dimensional.
        OSError: The file cannot be written.
    """
    from PIL import Image

    pixels = _checked(mask, None, "mask").astype(np.uint8) * 255
    Image.fromarray(pixels).save(Path(path), format="PNG")


def save_indexed_masks(
    path: str | os.PathLike[str], masks: Mapping[int, Mask], *, size: tuple[int, int] | None = None
) -> None:
    """Write the masks of several objects as one PNG with a palette, the form of DAVIS's annotations.

    A pixel's value is its object's id, 0 for none; where masks overlap, the higher id wins.

    Args:
        path: The file, overwritten if it exists.
        masks: ``bool[H, W]`` for each object's id, 1 to 255.
        size: Height and width, needed where there may be no mask at all.

    Raises:
        InvalidArgument: An id above 255, masks of different sizes, or neither a mask nor a size.
        OSError: The file cannot be written.
    """
    from PIL import Image

    if size is None:
        if not masks:
            raise InvalidArgument.of("size", "is needed where there are no masks")
        size = next(iter(masks.values())).shape[:2]
    indices = np.zeros(size, np.uint8)
    for object_id in sorted(masks):
        if not 0 < object_id <= _MAX_INDEX:
            raise InvalidArgument.of("masks", f"object_id {object_id} does not fit an indexed PNG, which ends at 255")
        indices[_checked(masks[object_id], size, f"masks[{object_id}]")] = object_id
    picture = Image.fromarray(indices)
    picture.putpalette(_DAVIS_PALETTE)
    picture.save(Path(path), format="PNG")


def _davis_palette() -> bytes:
    """PASCAL VOC's colour map, which DAVIS uses: the bits of an index, spread over the high bits of the channels."""
    index = np.arange(256)
    channels = [sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8).tobytes()


_DAVIS_PALETTE = _davis_palette()


def _checked(mask: Any, size: tuple[int, ...] | None, field: str) -> Mask:
    array = np.asarray(mask)
    if array.ndim != 2:
        raise InvalidArgument.of(field, f"has the shape {list(array.shape)}, must be [H, W]")
    if size is not None and array.shape != tuple(size):
        height, width = size
        raise InvalidArgument.of(
            field, f"is {array.shape[1]}x{array.shape[0]} pixels, the picture {width}x{height}; they must be equal"
        )
    return array.astype(np.bool_, copy=False)


def _draw(canvas: npt.NDArray[np.uint8], mask: Mask, colour: Colour, *, alpha: float, outline: bool) -> None:
    """Draw one object in place, working on its bounding box alone."""
    thickness = max(1, round(min(mask.shape) / 360)) if outline else 0
    window = _bounds(mask, margin=thickness + 1)
    if window is None:
        return
    region, inside = canvas[window], mask[window]
    tint = np.array(colour, np.float32)
    region[inside] = (region[inside] * (1 - alpha) + tint * alpha + 0.5).astype(np.uint8)
    if outline:
        # A thin dark line around the coloured one keeps it visible on a background of the same colour.
        region[_grown(inside) & ~inside] = _DARK
        region[inside & ~_shrunk(inside, thickness)] = colour


def _bounds(mask: Mask, *, margin: int) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def _shrunk(mask: Mask, times: int) -> Mask:
    """The mask less its outermost pixels; the picture's edge counts as inside, so that no line runs along it."""
    for _ in range(times):
        mask = ~_grown(~mask)
    return mask


def _grown(mask: Mask) -> Mask:
    """The mask and its neighbours above, below, left and right."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
