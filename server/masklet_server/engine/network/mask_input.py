"""Pictures and clients' masks at the size at which the model takes them, which is a fraction of their own.

They are shrunk as SAM 2 does, with antialiasing. The values are floating-point numbers meanwhile, so that a picture of
35 megapixels would need more than a gigabyte. On a CPU `F.interpolate` shrinks rows first and columns then; so rows can
be shrunk a strip at a time, with the same result to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from masklet.errors import InvalidArgument
from masklet_server.engine.network.mask_decoder import MASK_BIAS, MASK_SCALE

# Pixels of a strip: 4 MB of each channel.
_STRIP_PIXELS = 2**20


def square_mask(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    """A mask for a video at the model's size, as `SAM2VideoPredictor.add_new_mask` makes it.

    Args:
        mask: ``bool[H, W]``.
        size: The model's `image_size`.

    Returns:
        ``bool[size, size]``.

    Raises:
        InvalidArgument: No pixel is left at that size.
    """
    if mask.shape == (size, size):
        return mask
    square: npt.NDArray[np.bool_] = (_shrunk_mask(mask, size, Tensor.float) >= 0.5).numpy()
    if not square.any():
        raise too_small()
    return square


def too_small() -> InvalidArgument:
    """The error of a mask of which the model sees nothing."""
    return InvalidArgument.of(
        "mask", "is too small: none of its pixels is left at the model's resolution; send a larger one, or clicks"
    )


def logits_of_mask(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.float32]:
    """Logits that stand for a mask of a picture, as SAM 2 makes them: -10 and 10, resized with antialiasing.

    Args:
        mask: ``bool[H, W]``.
        size: The model's `logits_size`.

    Returns:
        ``float32[size, size]``.
    """
    logits: npt.NDArray[np.float32] = _shrunk_mask(mask, size, _as_logits).numpy()
    return logits


def shrink(pixels: Tensor, size: int, convert: Callable[[Tensor], Tensor]) -> Tensor:
    """Resize to a square, as ``F.interpolate(..., mode="bilinear", antialias=True)`` does.

    Args:
        pixels: ``[C, H, W]`` of any dtype.
        size: Side of the square.
        convert: Makes ``float32[C, h, W]`` of some rows of the pixels.

    Returns:
        ``float32[C, size, size]``.
    """
    height, width = pixels.shape[1:]
    rows = max(1, _STRIP_PIXELS // width) if pixels.device.type == "cpu" else height
    if rows >= height:
        return _resized(convert(pixels), (size, size))
    starts = range(0, height, rows)
    strips = [_resized(convert(pixels[:, y : y + rows]), (min(rows, height - y), size)) for y in starts]
    return _resized(torch.cat(strips, dim=1), (size, size))


def _shrunk_mask(mask: npt.NDArray[np.bool_], size: int, convert: Callable[[Tensor], Tensor]) -> Tensor:
    return shrink(torch.from_numpy(mask)[None], size, convert)[0]


def _as_logits(mask: Tensor) -> Tensor:
    return mask.float() * MASK_SCALE + MASK_BIAS


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
