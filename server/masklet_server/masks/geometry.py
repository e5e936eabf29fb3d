"""Where a mask lies and how large it is."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Geometry:
    """Box and area of a mask.

    Attributes:
        box: x0, y0 (inclusive), x1, y1 (exclusive) of the smallest box around the foreground; None where it is empty.
        area: Foreground pixels.
    """

    box: tuple[int, int, int, int] | None
    area: int


def measure(mask: npt.NDArray[np.bool_]) -> Geometry:
    """Box and area of ``bool[H, W]``."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    area = cv2.countNonZero(pixels)
    if area == 0:
        return Geometry(None, 0)
    x, y, width, height = cv2.boundingRect(pixels)
    return Geometry((x, y, x + width, y + height), area)
