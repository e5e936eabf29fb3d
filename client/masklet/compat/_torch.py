"""What needs torch; imported only when it is used, because the client works without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    raise ImportError(
        "masklet.compat returns masks as torch tensors, as sam2 does, but torch is not installed: pip install torch "
        "(the build for CPUs suffices)"
    ) from error

# sam2's NO_OBJ_SCORE: the logits of an object that has no result on a frame.
NO_OBJECT = -1024.0

CPU = torch.device("cpu")


def video_masks(logits: Sequence[npt.NDArray[np.float32] | None], height: int, width: int) -> torch.Tensor:
    """Logits at the video's size, as sam2 makes them from low-resolution ones.

    Args:
        logits: ``float32[h, w]`` of each object; None for one that has no result.
        height: Rows of the video.
        width: Columns of the video.

    Returns:
        ``float32[N, 1, H, W]``.
    """
    masks = torch.full((len(logits), 1, height, width), NO_OBJECT)
    for row, low in enumerate(logits):
        if low is not None:
            masks[row] = resized(low[None], height, width)
    return masks


def resized(logits: npt.NDArray[np.float32], height: int, width: int) -> torch.Tensor:
    """Logits ``float32[N, h, w]`` at another size, ``float32[N, H, W]`` (`_get_orig_video_res_output`)."""
    low = torch.from_numpy(logits)
    if low.shape[-2:] == (height, width):
        return low
    return F.interpolate(low[None], size=(height, width), mode="bilinear", align_corners=False)[0]
