"""A mask of one object on one frame, as bytes: the same on the WebSocket and in the project's file of masks."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masklet import ObjectResult
from masklet.rle import Rle, decode, read_counts, write_counts

VERSION = 1
HEAD = struct.Struct("<BBHIIffIII")
"""Version, flags, object, frame, revision, predicted IoU, score, area, width << 16 | height, length of the counts."""
VISIBLE = 1
PROMPTED = 2
EDITED = 4
ABSENT = 8
"""Flags: the model sees the object; a prompt is on this frame; a person drew the mask; the mask was deleted."""


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """One object on one frame.

    Attributes:
        object_id: The object.
        frame: The frame's number.
        revision: The number of the operation that made the mask. A higher one is newer.
        flags: `VISIBLE`, `PROMPTED`, `EDITED` and `ABSENT`, added.
        iou: The model's estimate of the mask's intersection over union with the truth, 0 to 1.
        score: A logit; above 0 the model takes the object to be in the picture.
        area: The number of foreground pixels.
        size: Width and height of the video.
        counts: COCO's compressed run-lengths; empty where the mask is.
    """

    object_id: int
    frame: int
    revision: int
    flags: int
    iou: float
    score: float
    area: int
    size: tuple[int, int]
    counts: bytes

    def pack(self) -> bytes:
        """The record as the bytes that are sent and stored."""
        width, height = self.size
        return HEAD.pack(
            VERSION, self.flags, self.object_id, self.frame, self.revision, self.iou, self.score, self.area,
            width << 16 | height, len(self.counts),
        ) + self.counts  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes) -> MaskRecord:
        """The record that `pack` made bytes of.

        Raises:
            ValueError: It is of another version, or cut off.
        """
        if len(data) < HEAD.size:
            raise ValueError("the record is cut off")
        version, flags, object_id, frame, revision, iou, score, area, size, length = HEAD.unpack_from(data)
        if version != VERSION or len(data) != HEAD.size + length:
            raise ValueError(f"the record is of version {version}, or its length is wrong")
        counts = data[HEAD.size :]
        return cls(object_id, frame, revision, flags, iou, score, area, (size >> 16, size & 0xFFFF), counts)

    @property
    def visible(self) -> bool:
        """Whether the model sees the object."""
        return bool(self.flags & VISIBLE)

    @property
    def rle(self) -> Rle:
        """The mask's run-lengths; those of an empty mask where there is none."""
        width, height = self.size
        counts = self.counts or write_counts(np.array([height * width]))
        return Rle(size=[height, width], counts=counts.decode())

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """The smallest box around the mask: x0, y0 (inclusive), x1, y1 (exclusive); None where the mask is empty."""
        if not self.area:
            return None
        width, height = self.size
        ends = np.cumsum(read_counts(self.counts, height, width))
        starts, lasts = ends[:-1:2], ends[1::2] - 1  # of the runs of foreground, down the columns
        x0, x1 = int(starts[0]) // height, int(lasts[-1]) // height + 1
        if (starts // height != lasts // height).any():  # over the end of a column
            return float(x0), 0.0, float(x1), float(height)
        return float(x0), float((starts % height).min()), float(x1), float((lasts % height).max() + 1)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask, ``bool[H, W]`` at the video's size."""
        return decode(self.rle)


def record_of(result: ObjectResult, frame: int, revision: int, flags: int = 0) -> MaskRecord:
    """The record of what the server found.

    Args:
        result: The object's result.
        frame: The frame's number.
        revision: The operation that it belongs to.
        flags: `PROMPTED` or `EDITED`; whether the object is visible is taken from the result.
    """
    height, width = result.rle["size"]
    return MaskRecord(
        result.object_id, frame, revision, flags | (VISIBLE if result.visible else 0), result.predicted_iou,
        result.object_score, result.area, (width, height), result.rle["counts"].encode() if result.area else b"",
    )  # fmt: skip
