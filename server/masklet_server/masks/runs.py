"""A mask as the lengths of its runs: what the engine gives out, so that a GPU's masks are small when they leave it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask, column by column as in COCO's run-length encoding.

    Attributes:
        height: Rows.
        width: Columns.
        lengths: ``int64[N]`` of the runs, in turn of background and foreground; the first may be 0. Their sum is
            height times width.
    """

    height: int
    width: int
    lengths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> Runs:
        """The runs of ``bool[H, W]``."""
        height, width = mask.shape
        columns = np.flatnonzero(mask.any(axis=0))
        if not len(columns):
            return cls(height, width, np.array([height * width]))
        # Only columns with something in them: large temporary arrays cost more than what is done with them.
        left, right = int(columns[0]), int(columns[-1]) + 1
        # OpenCV transposes several times faster than NumPy copies to Fortran order.
        down = cv2.transpose(np.ascontiguousarray(mask[:, left:right]).view(np.uint8)).ravel()
        begin, end = [left * height] if down[0] else [], [right * height] if down[-1] else []
        edges = np.concatenate((begin, np.flatnonzero(down[1:] != down[:-1]) + left * height + 1, end)).astype(np.int64)
        inner = edges[(edges > 0) & (edges < height * width)]
        return cls.between(inner, bool(down[0]) and left == 0, height, width)

    @classmethod
    def between(cls, edges: npt.NDArray[np.int64], is_foreground: bool, height: int, width: int) -> Runs:
        """The runs between pixels that differ from the one before.

        Args:
            edges: ``int64[N]``, which pixels these are, counted down the columns; growing.
            is_foreground: The first pixel.
            height: Rows.
            width: Columns.
        """
        ends = np.concatenate(([0, 0] if is_foreground else [0], edges, [height * width]))
        return cls(height, width, np.diff(ends))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``bool[H, W]``."""
        values = np.arange(len(self.lengths)) % 2 == 1
        return np.ascontiguousarray(np.repeat(values, self.lengths).reshape(self.width, self.height).T)

    @property
    def area(self) -> int:
        """Foreground pixels."""
        return int(self.lengths[1::2].sum())

    @cached_property
    def box(self) -> Box | None:
        """x0, y0 (inclusive), x1, y1 (exclusive) of the smallest box around the foreground; None where it is empty."""
        if self.area == 0:
            return None
        ends = np.cumsum(self.lengths)
        first, last = ends[:-1:2], ends[1::2] - 1  # pixels of each run of foreground
        x0, x1 = int(first[0]) // self.height, int(last[-1]) // self.height + 1
        if (first // self.height < last // self.height).any():
            return x0, 0, x1, self.height  # a run goes on in the next column
        return x0, int((first % self.height).min()), x1, int((last % self.height).max()) + 1
