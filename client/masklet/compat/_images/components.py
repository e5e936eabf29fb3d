"""Connected parts of masks, for filling holes and removing specks as sam2's CUDA extension does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def component_areas(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The area of the connected part that each pixel belongs to; pixels that touch at a corner are connected.

    Args:
        mask: ``bool[H, W]``.

    Returns:
        ``int64[H, W]``, 0 where `mask` is false.
    """
    height, width = mask.shape
    areas = np.zeros((height, width), np.int64)
    # Rows are cut into runs, and runs that touch are joined: there are far fewer of them than pixels.
    change = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(change == 1)
    _, ends = np.nonzero(change == -1)
    stride = width + 2  # so that the end of one row is not the start of the next one
    first = np.searchsorted(rows * stride + ends, (rows + 1) * stride + starts, "left")
    last = np.searchsorted(rows * stride + starts, (rows + 1) * stride + ends, "right")
    counts = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(rows)), counts)
    lower = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    lengths = ends - starts
    labels = _joined(len(rows), upper, lower)
    areas[mask] = np.repeat(np.bincount(labels, lengths, len(rows)).astype(np.int64)[labels], lengths)
    return areas


def without_specks(
    logits: npt.NDArray[np.float32], threshold: float, max_hole_area: float, max_sprinkle_area: float
) -> npt.NDArray[np.float32]:
    """Logits with small holes filled and small spots removed (``SAM2Transforms.postprocess_masks``).

    Args:
        logits: ``float32[N, h, w]``.
        threshold: Foreground is above it.
        max_hole_area: Holes of at most so many pixels are set to `threshold` + 10; 0: none.
        max_sprinkle_area: Spots of at most so many pixels are set to `threshold` - 10; 0: none.

    Returns:
        ``float32[N, h, w]``.
    """
    found = logits.copy()
    for source, target in zip(logits, found, strict=True):
        if max_hole_area > 0:
            areas = component_areas(source <= threshold)
            target[(areas > 0) & (areas <= max_hole_area)] = threshold + 10
        if max_sprinkle_area > 0:
            areas = component_areas(source > threshold)
            target[(areas > 0) & (areas <= max_sprinkle_area)] = threshold - 10
    return found


def _joined(count: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of `count` runs, the lowest number of a run that it is connected with, by pairs of runs that touch."""
    labels = np.arange(count)
    while True:
        lower = labels.copy()
        np.minimum.at(lower, first, labels[second])
        np.minimum.at(lower, second, labels[first])
        lower = lower[lower]
        if np.array_equal(lower, labels):
            return labels
        labels = lower
