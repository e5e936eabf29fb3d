"""The guided filter of `guided_on_device`, on a CPU: only around the mask, and by OpenCV, in a fifth of the time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from masklet_server.masks.guided_on_device import EPSILON, RADIUS

_Floats = npt.NDArray[np.float64]
_Plane = npt.NDArray[np.float32]

# A point of the grid whose logit is smaller has a share of less than a hundredth. Where all points of a window have, no
# linear function of the colours comes near a half.
_NO_SHARE = -4.6
# Functions of colours are means over windows of fits in windows: so far does a point reach.
_REACH = 2 * RADIUS + 1
_SUM = np.ones((1, 4), np.float32)
_WINDOW = (2 * RADIUS + 1, 2 * RADIUS + 1)


@dataclass(frozen=True)
class _Box:
    """A part of a map: the first row and column inclusive, the last ones exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    def grown(self, by: int, side: int) -> _Box:
        return _Box(
            max(0, self.top - by), max(0, self.left - by), min(side, self.bottom + by), min(side, self.right + by)
        )

    def scaled(self, by: int) -> _Box:
        return _Box(self.top * by, self.left * by, self.bottom * by, self.right * by)

    def within(self, other: _Box) -> _Box:
        return _Box(self.top - other.top, self.left - other.left, self.bottom - other.top, self.right - other.left)

    @property
    def part(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


class CpuGuide:
    """One frame's colours; see `masklet_server.masks.edges.Guide`.

    Args:
        pixels: ``uint8[S, S, 3]`` RGB at the model's size; only read.
        grid: Side of the logits, a divisor of S.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8], grid: int) -> None:
        self._pixels, self._grid = pixels, grid
        self._side = len(pixels)
        self._step = self._side // grid
        means = cv2.resize(pixels.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
        # In float64, because the covariance of nearly gray colours cancels to nothing in float32.
        self._colours = means.reshape(grid, grid, 3).astype(np.float64) / 255

    def draw(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Masks ``bool[B, H, W]`` with finer edges."""
        return torch.from_numpy(np.stack([self._drawn(one, height, width) for one in logits[:, 0].numpy()]))

    def refine(self, logits: Tensor) -> Tensor:
        """How far the object's share of each pixel is above a half; ``float32[B, 1, h, w]`` to ``[B, 1, S, S]``."""
        refined = np.full((len(logits), 1, self._side, self._side), -0.5, np.float32)
        for whole, one in zip(refined[:, 0], logits[:, 0].numpy(), strict=True):
            if (box := self._box(one)) is not None:
                whole[box.scaled(self._step).part] = self._refined(one, box)
        return torch.from_numpy(refined)

    def _box(self, logits: _Plane) -> _Box | None:
        """The part of the grid where the mask may be; None: nowhere."""
        left, top, width, height = cv2.boundingRect((logits > _NO_SHARE).view(np.uint8))
        return _Box(top, left, top + height, left + width).grown(2 * RADIUS, self._grid) if width else None

    def _drawn(self, logits: _Plane, height: int, width: int) -> npt.NDArray[np.bool_]:
        mask = np.zeros((height, width), np.bool_)
        if (box := self._box(logits)) is None:
            return mask
        inner = box.scaled(self._step)
        rows, shown_rows = _aligned(inner.top, inner.bottom, self._side, height)
        columns, shown_columns = _aligned(inner.left, inner.right, self._side, width)
        outer = _Box(rows.start, columns.start, rows.stop, columns.stop)
        refined = np.full((outer.bottom - outer.top, outer.right - outer.left), -0.5, np.float32)
        refined[inner.within(outer).part] = self._refined(logits, box)
        size = (shown_columns.stop - shown_columns.start, shown_rows.stop - shown_rows.start)
        mask[shown_rows, shown_columns] = cv2.resize(refined, size, interpolation=cv2.INTER_LINEAR) > 0
        return mask

    def _refined(self, logits: _Plane, box: _Box) -> _Plane:
        """Shares above a half at the model's own size, in a box of the grid."""
        around = box.grown(_REACH, self._grid)
        share = 1 / (1 + np.exp(-logits[around.part].astype(np.float64)))
        functions = _functions(self._colours[around.part], share)
        height, width = share.shape
        # The picture's numbers go up to 255, and so does a fourth one, which the offset belongs to.
        functions[..., 3] -= 0.5
        functions /= 255
        enlarged = cv2.resize(
            functions.astype(np.float32), (width * self._step, height * self._step), interpolation=cv2.INTER_LINEAR
        )[box.within(around).scaled(self._step).part]
        picture = cv2.cvtColor(self._pixels[box.scaled(self._step).part], cv2.COLOR_RGB2RGBA)
        weighted = cv2.multiply(picture, enlarged, dtype=cv2.CV_32F)
        return cv2.transform(weighted, _SUM).astype(np.float32, copy=False)


def _functions(colours: _Floats, share: _Floats) -> _Floats:
    """The share as a linear function of the colours around each point: slopes and offset, ``[h, w, 4]``.

    Args:
        colours: ``[h, w, 3]``, between 0 and 1.
        share: ``[h, w]``, likewise.
    """
    red, green, blue = cv2.split(colours)
    products = (red * red, red * green, red * blue, green * green, green * blue, blue * blue)
    pixels = cv2.merge([red, green, blue, share, *products, share * red, share * green, share * blue])
    r, g, b, p, rr, rg, rb, gg, gb, bb, rp, gp, bp = cv2.split(_box_mean(pixels))
    rr, gg, bb = rr - r * r + EPSILON, gg - g * g + EPSILON, bb - b * b + EPSILON
    rg, rb, gb = rg - r * g, rb - r * b, gb - g * b
    rp, gp, bp = rp - r * p, gp - g * p, bp - b * p
    # The inverse of the covariance matrix by its cofactors.
    a, d, f = gg * bb - gb * gb, rr * bb - rb * rb, rr * gg - rg * rg
    b_, c, e = rb * gb - rg * bb, rg * gb - rb * gg, rg * rb - rr * gb
    scale = 1 / (rr * a + rg * b_ + rb * c)
    slopes = [
        (a * rp + b_ * gp + c * bp) * scale,
        (b_ * rp + d * gp + e * bp) * scale,
        (c * rp + e * gp + f * bp) * scale,
    ]
    offset = p - slopes[0] * r - slopes[1] * g - slopes[2] * b
    return _box_mean(cv2.merge([*slopes, offset]))


def _box_mean(maps: npt.NDArray[Any]) -> _Floats:
    """Mean over a window around each point, or what of it lies within the maps; ``[h, w, C]`` to as many."""
    sums = cv2.boxFilter(maps, -1, _WINDOW, normalize=False, borderType=cv2.BORDER_CONSTANT)
    rows, columns = (_window_sizes(side) for side in maps.shape[:2])
    means: _Floats = sums / (rows[:, None] * columns)[..., None]
    return means


def _window_sizes(side: int) -> _Floats:
    """How many points of the window around each of so many points lie within the map."""
    places = np.arange(side)
    sizes: _Floats = (np.minimum(places + RADIUS, side - 1) - np.maximum(places - RADIUS, 0) + 1).astype(np.float64)
    return sizes


def _aligned(start: int, stop: int, side: int, shown: int) -> tuple[slice, slice]:
    """The part of a side that can be enlarged alone as the whole is, and what becomes of it.

    The centres of every few pixels lie on each other before and after, such as those of 3 and 10 where 384 pixels
    become 1280. Parts begin and end there.

    Args:
        start: First pixel that must be in the part.
        stop: End of the pixels that must be in the part.
        side: Number of pixels before.
        shown: Number of pixels after.
    """
    common = math.gcd(side, shown)
    before, after = side // common, shown // common
    # A pixel more on each side, because enlarged pixels lie between two.
    first, last = max(0, start - 1) // before, -(-min(side, stop + 1) // before)
    return slice(first * before, last * before), slice(first * after, last * after)
