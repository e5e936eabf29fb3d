"""The guided filter of `guided_on_device`, on a CPU: only around the mask, and by OpenCV, in a fifth of the time."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from masklet_server.masks.guided_on_device import EPSILON, RADIUS
from masklet_server.masks.runs import Runs

_Plane = npt.NDArray[Any]  # float32 everywhere, but OpenCV's annotations do not say so
_Maps = npt.NDArray[Any]

# A point of the grid whose logit is smaller has a share of less than a hundredth. Where all points of a window have, no
# linear function of the colours comes near a half.
_NO_SHARE = -4.6
# Functions of colours are means over windows of fits in windows: so far does a point reach.
_REACH = 2 * RADIUS + 1
_WINDOW = (2 * RADIUS + 1, 2 * RADIUS + 1)
# From red, green and blue to grey and two differences, which are at right angles to each other. A guided filter gives
# the same for both. In a nearly grey picture, red, green and blue vary together, and the inverse of their covariance is
# made of differences of nearly equal numbers, for which float32 has too few digits. Grey and differences vary apart.
_TURN = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], np.float64)
_TURN = (_TURN / np.linalg.norm(_TURN, axis=1, keepdims=True)).astype(np.float32)
# Back from functions of these to functions of red, green and blue, up to 255.
_BACK = np.eye(4, dtype=np.float32)
_BACK[:3, :3] = _TURN.T / 255
# Grey values lie around this, so that their mean's square is small.
_MIDDLE = np.float32(127.5)


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
        self._grid = grid
        self._side = len(pixels)
        self._step = self._side // grid
        picture = pixels.astype(np.float32) - _MIDDLE
        self._picture = cv2.split(picture)
        self._colours = _Colours(cv2.resize(picture, (grid, grid), interpolation=cv2.INTER_AREA))

    def draw(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Masks ``bool[B, H, W]`` with finer edges."""
        masks = np.zeros((len(logits), height, width), np.bool_)
        for mask, one in zip(masks, logits[:, 0].numpy(), strict=True):
            if (drawn := self._drawn(one, height, width)) is not None:
                part, rows, columns = drawn
                mask[rows, columns] = part
        return torch.from_numpy(masks)

    def runs(self, logits: Tensor, height: int, width: int) -> Runs:
        """The runs of one mask that `draw` gives, looked for only where there is foreground.

        Args:
            logits: ``float32[h, w]``.
            height: Rows of the mask.
            width: Columns of the mask.
        """
        if (drawn := self._drawn(logits.numpy(), height, width)) is None:
            return Runs.between(np.empty(0, np.int64), height, width)
        part, rows, columns = drawn
        return Runs.of_part(part, rows.start, columns.start, height, width)

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

    def _drawn(self, logits: _Plane, height: int, width: int) -> tuple[npt.NDArray[np.bool_], slice, slice] | None:
        """The part of the mask that may have foreground, its rows and its columns; None: no part has."""
        if (box := self._box(logits)) is None:
            return None
        inner = box.scaled(self._step)
        rows, shown_rows = _aligned(inner.top, inner.bottom, self._side, height)
        columns, shown_columns = _aligned(inner.left, inner.right, self._side, width)
        outer = _Box(rows.start, columns.start, rows.stop, columns.stop)
        refined = np.full((outer.bottom - outer.top, outer.right - outer.left), -0.5, np.float32)
        refined[inner.within(outer).part] = self._refined(logits, box)
        size = (shown_columns.stop - shown_columns.start, shown_rows.stop - shown_rows.start)
        return cv2.resize(refined, size, interpolation=cv2.INTER_LINEAR) > 0, shown_rows, shown_columns

    def _refined(self, logits: _Plane, box: _Box) -> _Plane:
        """Shares above a half at the model's own size, in a box of the grid."""
        around = box.grown(_REACH, self._grid)
        functions = self._colours.functions(1 / (1 + np.exp(-logits[around.part])), around)
        height, width = functions.shape[:2]
        enlarged = cv2.resize(functions, (width * self._step, height * self._step), interpolation=cv2.INTER_LINEAR)
        inner = enlarged[box.within(around).scaled(self._step).part]
        *slopes, refined = cv2.split(inner)
        for slope, plane in zip(slopes, self._picture, strict=True):
            cv2.accumulateProduct(slope, plane[box.scaled(self._step).part], refined)
        return refined


class _Colours:
    """What a guided filter takes of the colours alone: the same for all masks of a frame.

    Args:
        colours: ``float32[h, w, 3]`` RGB, -127.5 to 127.5.
    """

    def __init__(self, colours: _Maps) -> None:
        a, b, c = self._turned = cv2.split(cv2.transform(colours, _TURN / 255))
        x, y, z, aa, ab, ac, bb, bc, cc = _box_means([a, b, c, a * a, a * b, a * c, b * b, b * c, c * c])
        self._mean = (x, y, z)
        aa, bb, cc = aa - x * x + EPSILON, bb - y * y + EPSILON, cc - z * z + EPSILON
        ab, ac, bc = ab - x * y, ac - x * z, bc - y * z
        # The inverse of the covariance matrix by its cofactors.
        i, j, k = bb * cc - bc * bc, ac * bc - ab * cc, ab * bc - ac * bb
        scale = 1 / (aa * i + ab * j + ac * k)
        cofactors = (i, j, k, aa * cc - ac * ac, ab * ac - aa * bc, aa * bb - ab * ab)
        self._inverse = [cofactor * scale for cofactor in cofactors]

    def functions(self, share: _Plane, box: _Box) -> _Maps:
        """The share above a half as a linear function of the picture around each point of a box.

        Args:
            share: ``float32[h, w]``, between 0 and 1.
            box: Which part of the grid that is.

        Returns:
            Slopes for red, green and blue, and the offset, ``float32[h, w, 4]``.
        """
        turned, mean, inverse = (
            [plane[box.part] for plane in some] for some in (self._turned, self._mean, self._inverse)
        )
        *products, mean_share = _box_means([*(plane * share for plane in turned), share])
        u, v, w = (product - one * mean_share for product, one in zip(products, mean, strict=True))
        i, j, k, l, m, n = inverse  # noqa: E741
        slopes = (i * u + j * v + k * w, j * u + l * v + m * w, k * u + m * v + n * w)
        offset = mean_share - slopes[0] * mean[0] - slopes[1] * mean[1] - slopes[2] * mean[2] - 0.5
        return cv2.transform(cv2.merge(_box_means([*slopes, offset])), _BACK)


def _box_means(planes: Sequence[_Plane]) -> list[_Plane]:
    """For each plane, the mean over a window around each point, or over what of it lies within the plane."""
    height, width = planes[0].shape
    sums = cv2.boxFilter(cv2.merge(planes), -1, _WINDOW, normalize=False, borderType=cv2.BORDER_CONSTANT)
    weights = _window_weights(height)[:, None] * _window_weights(width)
    return [plane * weights for plane in cv2.split(sums)]


@functools.lru_cache(maxsize=512)
def _window_weights(side: int) -> _Plane:
    """One divided by how many points of the window around each of so many points lie within the map."""
    places = np.arange(side)
    sizes = np.minimum(places + RADIUS, side - 1) - np.maximum(places - RADIUS, 0) + 1
    return (1 / sizes).astype(np.float32)


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
