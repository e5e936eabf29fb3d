"""One picture of a video, encoded or raw, as a client sends it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from masklet.errors import InvalidArgument
from masklet_server.video.formats import PictureFormat

NANOSECONDS = 1_000_000_000
DEFAULT_RATE = 30
# Twice the bytes of a pixel, because NV12 has one and a half.
_HALF_BYTES = {"rgb24": 6, "bgr24": 6, "gray8": 2, "nv12": 3}
_MAX_SECONDS = 2**63 / NANOSECONDS


@dataclass(frozen=True, eq=False)
class Picture:
    """One encoded or raw picture.

    Attributes:
        format: "encoded" (one of `formats.PICTURE_FORMATS`, recognised from the data; its EXIF orientation is applied),
            or a raw format of 8 bits a value, row by row. "nv12" is the luma, then the chroma at half the size.
        data: The file's bytes, or the ``height * width * channels`` raw ones.
        height: Rows; raw formats only.
        width: Columns; raw formats only.
        pts_seconds: Time since the start of the video; None: the frame's index divided by 30.
        capture_time_nanoseconds: When the client captured it, by the client's own clock; 0: not known.

    Raises:
        InvalidArgument: A field is wrong; its path is relative to the picture, such as "data".
    """

    format: PictureFormat
    data: bytes
    height: int = 0
    width: int = 0
    pts_seconds: float | None = None
    capture_time_nanoseconds: int = 0

    def __post_init__(self) -> None:
        if self.format not in get_args(PictureFormat):
            raise InvalidArgument.of(
                "format", f"is {self.format!r}, must be one of {', '.join(get_args(PictureFormat))}"
            )
        if not self.data:
            raise InvalidArgument.of("data", "is empty")
        check_pts(self.pts_seconds)
        if self.format == "encoded":
            return
        for field, value in (("height", self.height), ("width", self.width)):
            if value < 1:
                raise InvalidArgument.of(field, f"is {value}; raw {self.format} data needs its height and width")
            if self.format == "nv12" and value % 2:
                raise InvalidArgument.of(field, f"is {value}; nv12 data must have an even height and width")
        expected = self.height * self.width * _HALF_BYTES[self.format] // 2
        if len(self.data) != expected:
            raise InvalidArgument.of(
                "data",
                f"has {len(self.data)} bytes; {self.width}x{self.height} pixels of {self.format} have {expected}",
            )

    def __repr__(self) -> str:
        size = "" if self.format == "encoded" else f", {self.width}x{self.height}"
        return f"Picture({self.format}, {len(self.data)} bytes{size}, pts_seconds={self.pts_seconds})"


def check_pts(seconds: float | None) -> None:
    """Check that results can have this time stamp.

    Raises:
        InvalidArgument: They cannot; the error names the field "pts_seconds".
    """
    if seconds is not None and not (math.isfinite(seconds) and abs(seconds) < _MAX_SECONDS):
        raise InvalidArgument.of(
            "pts_seconds", f"is {seconds}, must be a finite number of seconds that fits 64 bits of nanoseconds"
        )
