"""Frames that come one by one as pictures."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Literal, get_args

from masklet.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from masklet_server.video._stream import SandboxedSource
from masklet_server.video.sandbox import DecoderProcess
from masklet_server.video.source import VideoLimits

PictureFormat = Literal["encoded", "rgb24", "bgr24", "gray8"]

NANOSECONDS = 1_000_000_000
DEFAULT_RATE = 30
_CHANNELS = {"rgb24": 3, "bgr24": 3, "gray8": 1}
_MAX_SECONDS = 2**63 / NANOSECONDS


@dataclass(frozen=True, eq=False)
class Picture:
    """One encoded or raw picture.

    Attributes:
        format: "encoded" (JPEG, PNG, WebP, BMP or TIFF, seen from the data; its EXIF orientation is applied), or a raw
            format of 8 bits a value, row by row.
        data: The file's bytes, or the ``height * width * channels`` raw ones.
        height: Rows; raw formats only.
        width: Columns; raw formats only.
        pts_seconds: Time since the start of the video; None: the frame's index / 30.

    Raises:
        InvalidArgument: A field is wrong; its path is relative to the picture, such as "data".
    """

    format: PictureFormat
    data: bytes
    height: int = 0
    width: int = 0
    pts_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.format not in get_args(PictureFormat):
            raise InvalidArgument.of(
                "format", f"is {self.format!r}, must be one of {', '.join(get_args(PictureFormat))}"
            )
        if not self.data:
            raise InvalidArgument.of("data", "is empty")
        if self.pts_seconds is not None and not (
            math.isfinite(self.pts_seconds) and abs(self.pts_seconds) < _MAX_SECONDS
        ):
            raise InvalidArgument.of("pts_seconds", f"must be a finite number of seconds, not {self.pts_seconds}")
        if self.format == "encoded":
            return
        for field, value in (("height", self.height), ("width", self.width)):
            if value < 1:
                raise InvalidArgument.of(field, f"is {value}; {self.format} data needs its size")
        expected = self.height * self.width * _CHANNELS[self.format]
        if len(self.data) != expected:
            raise InvalidArgument.of(
                "data",
                f"has {len(self.data)} bytes, {self.width}x{self.height} pixels of {self.format} have {expected}",
            )

    def __repr__(self) -> str:
        size = "" if self.format == "encoded" else f", {self.width}x{self.height}"
        return f"Picture({self.format}, {len(self.data)} bytes{size}, pts_seconds={self.pts_seconds})"


class PictureSource(SandboxedSource):
    """A series of pictures of one size, decoded in a process of their own. The time base is one nanosecond."""

    def __init__(self, image_size: int, limits: VideoLimits, *, frames_ahead: int = 4) -> None:
        """See `SandboxedSource`; `frames_ahead` also bounds the pictures that wait."""
        super().__init__(image_size, limits, frames_ahead=frames_ahead)
        self._credits = asyncio.Semaphore(frames_ahead)
        self._fed = 0
        self._first_pts = 0

    async def _start(self) -> DecoderProcess:
        return await DecoderProcess.start(
            "pictures", image_size=self._image_size, slots=self._frames_ahead, limits=self._limits
        )

    async def feed(self, picture: Picture) -> None:
        """Take the next picture; waits while `frames_ahead` pictures have not been taken from the other end.

        Dropped once the decoder has had its last word, which `next_frame` gives.

        Raises:
            FailedPrecondition: After `end`.
            ResourceExhausted: More pictures, or a longer time, than the limits allow.
        """
        if self._ended:
            raise FailedPrecondition("frame: the video was ended; nothing may follow end_of_video")
        pts = self._pts_of(picture)
        self._check_limits(pts)
        await self._credits.acquire()
        if self._over:
            self._credits.release()
            return
        index, self._fed = self._fed, self._fed + 1
        await self._decoder.send(
            "picture",
            picture.data,
            format=picture.format,
            height=picture.height,
            width=picture.width,
            size=len(picture.data),
            index=index,
            pts=pts,
        )

    def _pts_of(self, picture: Picture) -> int:
        if picture.pts_seconds is None:
            return round(self._fed * NANOSECONDS / DEFAULT_RATE)
        return round(picture.pts_seconds * NANOSECONDS)

    def _check_limits(self, pts: int) -> None:
        if self._fed == 0:
            self._first_pts = pts
        if 0 < self._limits.max_frames <= self._fed:
            raise ResourceExhausted(f"the video has more than max_frames = {self._limits.max_frames} pictures")
        longest = self._limits.max_duration_seconds
        if 0 < longest < (pts - self._first_pts) / NANOSECONDS:
            raise ResourceExhausted(f"the video lasts longer than max_duration_seconds = {longest:g}")

    def _on_taken(self) -> None:
        self._credits.release()

    def _finished(self) -> None:
        super()._finished()
        self._credits.release()  # wakes a `feed` that waits; it wakes the next
