"""Objects lifted out of their pictures, so that they can move before what was around them."""

from __future__ import annotations

import cv2
import numpy as np

from training.data.cache import Pixels

_SEAM = 3  # pixels about a hole that still show the object


def filled(picture: Pixels, hole: Pixels) -> Pixels:
    """The picture with what might be behind a hole in it: what is beside it, and a blur where the hole is there, too.

    Args:
        picture: ``uint8[H, W, 3]``.
        hole: ``uint8[H, W]``, 0 where the picture shall stay.
    """
    seam = np.ones((2 * _SEAM + 1,) * 2, np.uint8)
    gone = np.asarray(cv2.dilate((hole > 0).astype(np.uint8), seam), np.uint8)
    _, _, width, height = cv2.boundingRect(gone)
    if not width:
        return picture
    beside = min(
        (_shifted(picture, gone, way * width) for way in (1, -1)), key=lambda pair: int((pair[1] & gone).sum())
    )
    behind = np.where(beside[1][..., None] > 0, _blurred(picture, 1 - gone, max(width, height)), beside[0])
    part = cv2.GaussianBlur(gone.astype(np.float32), (5, 5), 0)[..., None]
    return np.asarray(picture * (1 - part) + behind * part, np.uint8)


def _shifted(picture: Pixels, gone: Pixels, move: int) -> tuple[Pixels, Pixels]:
    """Picture and hole moved sideways; at its edge a picture goes on as its mirror image."""
    columns = np.abs(np.arange(picture.shape[1]) + move)
    last = picture.shape[1] - 1
    columns = np.clip(np.where(columns > last, 2 * last - columns, columns), 0, last)
    return picture[:, columns], gone[:, columns]


def _blurred(picture: Pixels, known: Pixels, reach: int) -> Pixels:
    """The mean of what is known within reach of each pixel."""
    size = (2 * reach + 1, 2 * reach + 1)
    weight = cv2.blur(known.astype(np.float32), size)[..., None]
    total = cv2.blur(picture.astype(np.float32) * known[..., None], size)
    return np.asarray(np.clip(total / np.maximum(weight, 1e-4), 0, 255), np.uint8)
