"""A guided filter for masks, by torch on any device.

Formulas: K. He, J. Sun, X. Tang, Guided Image Filtering, ECCV 2010 / TPAMI 2013, section 3.5 (colour guide).
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

# In points of the grid of logits. On DAVIS nano's masks are equally good with 3 to 5, and with 8 hardly better for it.
RADIUS = 4
# Variance of colours (of values between 0 and 1) below which an edge of colour counts for nothing.
EPSILON = 1e-5


class DeviceGuide:
    """One frame's colours, prepared once for all masks of the frame.

    Args:
        pixels: ``uint8[S, S, 3]`` RGB at the model's size, on the device of the logits.
        grid: Side of the logits, a divisor of S.
    """

    def __init__(self, pixels: Tensor, grid: int) -> None:
        full = pixels.permute(2, 0, 1).float()[None] / 255
        # In float64, because the covariance of nearly gray colours cancels to nothing in float32.
        colours = F.avg_pool2d(full, full.shape[-1] // grid).double()
        red, green, blue = colours.unbind(1)
        products = torch.stack([red * red, red * green, red * blue, green * green, green * blue, blue * blue], 1)
        means = _box_mean(torch.cat([colours, products], 1))
        self._full, self._colours, self._mean = full, colours, means[:, :3]
        self._inverse = _inverse(means[:, 3:], self._mean)

    def refine(self, logits: Tensor) -> Tensor:
        """Masks with finer edges.

        Args:
            logits: ``float32[B, 1, h, w]``, h and w being the grid.

        Returns:
            ``float32[B, 1, S, S]``, positive where the object is: how far its share of a pixel is above a half.
        """
        share = torch.sigmoid(logits.double())
        means = _box_mean(torch.cat([share, self._colours * share], 1))
        mean_share = means[:, :1]
        covariance = means[:, 1:] - self._mean * mean_share
        slope = (self._inverse * covariance[:, None]).sum(2)
        offset = mean_share - (slope * self._mean).sum(1, keepdim=True)
        smooth = _box_mean(torch.cat([slope, offset], 1)).float()
        size = self._full.shape[-2:]
        enlarged = F.interpolate(smooth, size=size, mode="bilinear", align_corners=False)
        red, green, blue, rest = torch.split(enlarged, 1, dim=1)
        return (
            torch.addcmul(rest, red, self._full[:, :1])
            .addcmul_(green, self._full[:, 1:2])
            .addcmul_(blue, self._full[:, 2:])
            .sub_(0.5)
        )

    def draw(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Masks ``bool[B, H, W]`` with finer edges; see `masklet_server.masks.edges.Guide`."""
        refined = self.refine(logits)
        if refined.shape[-2:] != (height, width):
            refined = F.interpolate(refined, size=(height, width), mode="bilinear", align_corners=False)
        return refined[:, 0] > 0


def _box_mean(maps: Tensor) -> Tensor:
    """Mean over a square of 2 RADIUS + 1 points, or what of it lies within the map; ``[B, C, h, w]`` to as many."""
    weights = _box_weights(maps.shape[-1], maps.device)
    return weights @ maps @ weights.mT


@functools.lru_cache(maxsize=8)
def _box_weights(side: int, device: torch.device) -> Tensor:
    """``float64[side, side]`` by which a product of matrices takes each row's mean; quicker than pooling on CPUs."""
    numbers = torch.arange(side, device=device)
    near = ((numbers[:, None] - numbers).abs() <= RADIUS).double()
    return near / near.sum(1, keepdim=True)


def _inverse(products: Tensor, mean: Tensor) -> Tensor:
    """Inverse of the colours' covariance matrix plus epsilon at each point, ``[1, 3, 3, h, w]``.

    Args:
        products: Means of rr, rg, rb, gg, gb and bb, ``[1, 6, h, w]``.
        mean: Means of r, g and b, ``[1, 3, h, w]``.
    """
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    rr, rg, rb, gg, gb, bb = (
        products[:, n] - mean[:, i] * mean[:, j] + (EPSILON if i == j else 0.0) for n, (i, j) in enumerate(pairs)
    )
    cofactors = (
        gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg,
        rr * bb - rb * rb, rg * rb - rr * gb,
        rr * gg - rg * rg,
    )  # fmt: skip
    determinant = rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2]
    a, b, c, d, e, f = (cofactor / determinant for cofactor in cofactors)
    rows = ((a, b, c), (b, d, e), (c, e, f))
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
