"""Picture files with several pictures in them, shown one after the other: animated WebP, and TIFF with several pages.

FFmpeg reads neither; it reads APNG, GIF and animated AVIF, which `clip_reader` leaves to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import IO

from PIL import Image, UnidentifiedImageError

from masklet_media.rgb import to_rgb

FORMATS = ("WEBP", "TIFF")
"""Pillow's names of the formats."""
TIME_BASE = Fraction(1, 1000)
"""Seconds in a unit of time: WebP has milliseconds."""
_TIFF_RATE = 30  # as for a folder of pictures, which have no times either
_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def has_pages(start: bytes) -> bool:
    """Whether a file that begins so may have several pictures, and is for this module.

    Args:
        start: The first 16 bytes of the file, or more.
    """
    return start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def count_pictures(path: str | os.PathLike[str]) -> int:
    """How many pictures there are in a file that Pillow can read, such as an animation; 1 if it cannot tell.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1))
    except (UnidentifiedImageError, SyntaxError, ValueError):
        return 1


@dataclass(frozen=True)
class Page:
    """One picture of a file.

    Attributes:
        pts: When it is shown, in units of `TIME_BASE`.
        picture: In mode RGB, as it is meant to be seen.
    """

    pts: int
    picture: Image.Image


class PicturePages:
    """An open file of pictures.

    Attributes:
        count: How many pictures the file says that it has.
        size: Width and height of the first one.
        format: Pillow's name of the format.

    Args:
        file: Has `read`, `seek` and `tell`.

    Raises:
        UnidentifiedImageError: This is no such file.
        OSError, SyntaxError, ValueError: The file is damaged.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._image = Image.open(file, formats=FORMATS)
        self.count = int(getattr(self._image, "n_frames", 1))
        self.size = self._image.size
        self.format = str(self._image.format)

    def pages(self) -> Iterator[Page]:
        """Every picture in order; each is decoded when it is asked for.

        Raises:
            OSError, SyntaxError, ValueError: A picture is damaged.
        """
        milliseconds = 0
        for index in range(self.count):
            self._image.seek(index)
            self._image.load()
            if self.format == "TIFF":
                milliseconds = round(1000 * index / _TIFF_RATE)
            yield Page(milliseconds, to_rgb(self._image))
            milliseconds += max(1, round(self._image.info.get("duration", 0)))
