"""One decoded frame, at the size that the model takes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt


def in_nanoseconds(pts: int, time_base: Fraction) -> int:
    """A time stamp in nanoseconds, rounded."""
    # Not a product of fractions, which looks for common divisors and takes as long as a small message.
    whole, rest = divmod(pts * time_base.numerator * 1_000_000_000, time_base.denominator)
    twice = 2 * rest
    return whole + (twice > time_base.denominator or (twice == time_base.denominator and whole % 2 == 1))


@dataclass(frozen=True)
class KeyFrame:
    """A frame of a stream of packets that can be decoded without any frame before it.

    Attributes:
        index: The frame's.
        packet: Number of the packet in which it begins, counted from the stream's first.
    """

    index: int
    packet: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video, at the model's size.

    Attributes:
        index: 0-based, in order of presentation.
        pts: Presentation time stamp in units of `time_base`.
        time_base: Seconds in one unit.
        pixels: ``uint8[S, S, 3]`` RGB, the shown frame resized by a bicubic filter as by SAM 2's own loaders: Pillow's
            filter for a picture, swscale's for a frame of a video.
        height: Rows of the frame as shown.
        width: Columns of the frame as shown.
        arrived_seconds: When the frame's data arrived, by `time.monotonic`. For a clip, when the frame was decoded.
        capture_time_nanoseconds: When the client captured the frame, by the client's own clock; 0: not known.
        decode_seconds: Time spent on reading, decoding and resizing the frame.
        checksum: CRC-32 of the pixels, for frames of clips.
        undecoded: Time stamps of the frames between the one before and this one that the clip has, and that could not
            be decoded.
        key_frame: Of a stream of packets: where decoding can begin that is to give this frame; None: not known.
    """

    index: int
    pts: int
    time_base: Fraction
    pixels: npt.NDArray[np.uint8]
    height: int
    width: int
    arrived_seconds: float = 0.0
    capture_time_nanoseconds: int = 0
    decode_seconds: float = 0.0
    checksum: int = 0
    undecoded: tuple[int, ...] = ()
    key_frame: KeyFrame | None = None

    @property
    def pts_nanoseconds(self) -> int:
        """The time stamp in nanoseconds, rounded."""
        return in_nanoseconds(self.pts, self.time_base)

    @property
    def undecoded_nanoseconds(self) -> tuple[int, ...]:
        """The times in `undecoded` in nanoseconds, rounded."""
        return tuple(in_nanoseconds(pts, self.time_base) for pts in self.undecoded)

    def __repr__(self) -> str:
        size, shape = f"{self.width}x{self.height}", list(self.pixels.shape)
        return f"Frame(index={self.index}, pts={self.pts}*{self.time_base}s, {size}, pixels=uint8{shape})"
