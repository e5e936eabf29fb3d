"""Grids, crops, boxes and duplicates: what automatic masks need beside the model (``sam2.utils.amg``)."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels."""

_EDGE_PIXELS = 20.0


def point_grid(points_per_side: int) -> npt.NDArray[np.float64]:
    """Points at the centres of a grid's cells, ``float64[N, 2]``, x and y from 0 to 1 (``build_point_grid``)."""
    centers = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(centers, centers)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def point_grids(points_per_side: int, layers: int, downscale: int) -> list[npt.NDArray[np.float64]]:
    """The grid of the whole picture, and that of each layer of crops (``build_all_layer_point_grids``)."""
    return [point_grid(int(points_per_side / downscale**layer)) for layer in range(layers + 1)]


def crop_boxes(height: int, width: int, layers: int, overlap_ratio: float) -> list[tuple[Box, int]]:
    """The whole picture, then the crops of each layer, with the layer's number (``generate_crop_boxes``).

    Args:
        height: Rows of the picture.
        width: Columns of the picture.
        layers: Layer n cuts each side into 2**n crops.
        overlap_ratio: The part of the shorter side by which the crops of layer 1 overlap.
    """
    boxes = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / per_side))
        crop_width = math.ceil((overlap * (per_side - 1) + width) / per_side)
        crop_height = math.ceil((overlap * (per_side - 1) + height) / per_side)
        lefts = [(crop_width - overlap) * i for i in range(per_side)]
        tops = [(crop_height - overlap) * i for i in range(per_side)]
        for left, top in product(lefts, tops):
            boxes.append(((left, top, min(left + crop_width, width), min(top + crop_height, height)), layer))
    return boxes


def mask_box(mask: npt.NDArray[np.bool_]) -> Box:
    """The first and last column and row with foreground; zeros for an empty mask (``batched_mask_to_box``)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def touches_crop(box: Box, crop: Box, picture: Box) -> bool:
    """Whether a box ends where the crop does and the picture does not, within 20 pixels (``is_box_near_crop_edge``).

    Args:
        box: In pixels of the picture.
        crop: The crop.
        picture: The whole picture.
    """
    return any(
        abs(side - edge) <= _EDGE_PIXELS < abs(side - border)
        for side, edge, border in zip(box, crop, picture, strict=True)
    )


def stability_scores(logits: npt.NDArray[np.float32], threshold: float, offset: float) -> npt.NDArray[np.float32]:
    """How little masks change with the threshold (``calculate_stability_score``).

    Args:
        logits: ``float32[N, H, W]``.
        threshold: Foreground is above it.
        offset: How far the threshold moves up and down.

    Returns:
        ``float32[N]``: the area at the higher threshold divided by that at the lower one; nan where both are 0.
    """
    high = (logits > threshold + offset).sum(axis=(1, 2))
    low = (logits > threshold - offset).sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        scores: npt.NDArray[np.float32] = high.astype(np.float32) / low.astype(np.float32)
    return scores


def without_duplicates(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], threshold: float
) -> npt.NDArray[np.int64]:
    """Non-maximum suppression (torchvision's ``nms``): drop what overlaps something better.

    Args:
        boxes: ``float32[N, 4]``, x0, y0, x1, y1.
        scores: ``float32[N]``.
        threshold: Boxes whose intersection over union with a better one is above it are dropped.

    Returns:
        ``int64[K]``: the places of the boxes that stay, best first; among equals, the first comes first.
    """
    order = np.argsort(-scores, kind="stable")
    x0, y0, x1, y1 = boxes.astype(np.float32).T
    areas = (x1 - x0) * (y1 - y0)
    kept = []
    while len(order):
        best, others = order[0], order[1:]
        kept.append(best)
        width = np.minimum(x1[best], x1[others]) - np.maximum(x0[best], x0[others])
        height = np.minimum(y1[best], y1[others]) - np.maximum(y0[best], y0[others])
        shared = width.clip(0) * height.clip(0)
        with np.errstate(invalid="ignore"):  # two boxes without area: nan, which is above nothing
            overlaps = shared / (areas[best] + areas[others] - shared)
        order = others[~(overlaps > threshold)]
    return np.array(kept, np.int64)
