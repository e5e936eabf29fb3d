"""A mask as the lengths of its runs: the form in which masks leave the engine, because it is small.

Lengths are those of `masklet.rle`: pixels are counted down the columns, background first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from masklet import rle

# x0 and y0 inclusive, x1 and y1 exclusive.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask as run-lengths.

    Attributes:
        height: Rows of the mask.
        width: Columns of the mask.
        lengths: ``int64[N]``, lengths of the runs, of background and foreground in turn; only the first may be 0. Their
            sum is height * width.
    """

    height: int
    width: int
    lengths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> Runs:
        """The runs of a mask ``bool[H, W]``."""
        height, width = mask.shape
        return cls(height, width, rle.find_runs(mask))

    @classmethod
    def of_part(cls, part: npt.NDArray[np.bool_], top: int, left: int, height: int, width: int) -> Runs:
        """The runs of a mask outside of one part of which there is background.

        Args:
            part: ``bool[h, w]``, h and w at least 1.
            top: Row of the mask in which the part begins.
            left: Column of the mask in which the part begins.
            height: Rows of the mask.
            width: Columns of the mask.
        """
        rows, columns = part.shape
        framed = np.zeros((rows + 2, columns), np.bool_)
        framed[1:-1] = part
        down, right = np.divmod(np.flatnonzero(framed[1:] != framed[:-1]), columns)
        edges = (left + right) * height + (top + down)
        edges.sort()
        if rows == height:
            # A run that goes on in the next column ends and begins at one pixel.
            same = np.flatnonzero(edges[1:] == edges[:-1])
            edges = np.delete(edges, np.concatenate((same, same + 1)))
        if len(edges) and edges[-1] == height * width:
            edges = edges[:-1]
        return cls.between(edges, height, width)

    @classmethod
    def between(cls, edges: npt.NDArray[np.int64], height: int, width: int) -> Runs:
        """The runs that begin at the given pixels.

        Args:
            edges: ``int64[N]``, ascending: pixels, counted down the columns, that differ from the pixel before them.
                Before the first pixel there is background.
            height: Rows of the mask.
            width: Columns of the mask.
        """
        return cls(height, width, np.diff(edges, prepend=0, append=height * width))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``bool[H, W]`` in C order, painted on each access."""
        return rle.paint_runs(self.lengths, self.height, self.width)

    @property
    def area(self) -> int:
        """Number of foreground pixels of the mask."""
        return int(self.lengths[1::2].sum())

    @cached_property
    def box(self) -> Box | None:
        """The smallest box around the foreground: x0, y0 inclusive, x1, y1 exclusive; None if there is none."""
        if self.area == 0:
            return None
        ends = np.cumsum(self.lengths)
        first, last = ends[:-1:2], ends[1::2] - 1  # pixels of each run of foreground
        x0, x1 = int(first[0]) // self.height, int(last[-1]) // self.height + 1
        if (first // self.height < last // self.height).any():
            return x0, 0, x1, self.height  # a run goes on in the next column
        return x0, int((first % self.height).min()), x1, int((last % self.height).max()) + 1
