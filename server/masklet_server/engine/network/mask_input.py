"""A client's mask at the size at which the model takes it, which is a fraction of a picture's size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from masklet.errors import InvalidArgument
from masklet_server.engine.network.mask_decoder import MASK_BIAS, MASK_SCALE


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
    square: npt.NDArray[np.bool_] = (_shrunk(torch.from_numpy(mask).float(), size) >= 0.5).numpy()
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
    logits: npt.NDArray[np.float32] = _shrunk(torch.from_numpy(mask).float() * MASK_SCALE + MASK_BIAS, size).numpy()
    return logits


def _shrunk(values: Tensor, size: int) -> Tensor:
    shrunk = F.interpolate(values[None, None], size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return shrunk[0, 0]
