"""COCO's compressed run-lengths: masks as short strings."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from masklet.errors import InvalidArgument


class Rle(TypedDict):
    """A mask in COCO's compressed run-length encoding, as pycocotools and COCO's JSON files have it.

    `size` is [height, width].
    """

    size: list[int]
    counts: str


def encode_rle(mask: npt.NDArray[np.bool_]) -> Rle:
    """The run-lengths of a mask ``bool[H, W]``."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle(size=[int(side) for side in rle["size"]], counts=rle["counts"].decode("ascii"))


def decode_rle(rle: Rle) -> npt.NDArray[np.bool_]:
    """The mask as ``bool[H, W]``.

    pycocotools' own `decode` trusts its input, and warns under NumPy 2.

    Raises:
        InvalidArgument: The run-lengths are malformed or of another size.
    """
    height, width = rle["size"]
    runs = _runs(rle["counts"].encode("ascii", "replace"))
    if runs.min(initial=0) < 0 or runs.max(initial=0) > height * width or runs.sum() != height * width:
        raise InvalidArgument.of("rle", f"the runs do not make a mask of {width}x{height} pixels")
    return _mask(runs, height, width)


def _mask(runs: npt.NDArray[np.int64], height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask ``bool[H, W]`` of runs; only columns with foreground are turned from columns to rows, which is slow."""
    mask = np.zeros((height, width), np.bool_)
    painted = runs[: len(runs) // 2 * 2]
    if not len(painted):
        return mask
    left, end = int(painted[0]) // height, int(painted.sum())
    right = -(-end // height)
    lengths = np.append(painted, right * height - end)
    lengths[0] -= left * height
    down = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask[:, left:right] = down.reshape(right - left, height).T
    return mask


def _runs(counts: bytes) -> npt.NDArray[np.int64]:
    """Lengths of the runs down the columns, background first: pycocotools' rleFrString, for all runs at once.

    A run is written in groups of five bits, the lowest first, each a character from '0' on; its sixth bit says that
    more follow. The fifth bit of the last is the sign. From the fourth run on, each is the difference to the last but
    one.
    """
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    last = (groups & 32) == 0
    ends = np.flatnonzero(last)
    lengths = np.diff(ends, prepend=-1)
    if groups.size == 0 or groups.min() < 0 or groups.max() > 63 or not last[-1] or lengths.max() > 12:
        raise InvalidArgument.of("rle", "is not in COCO's compressed run-length encoding")
    starts = ends - lengths + 1
    place = np.arange(groups.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((groups & 31) << (5 * place), starts)
    runs -= np.where(groups[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
