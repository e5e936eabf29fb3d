"""Frames that are pictures of their own: a folder of files, or a file with several pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from PIL import Image

from masklet._media.pictures import load_rgb
from masklet._media.uploads import picture_files
from masklet_media.picture_pages import TIME_BASE, PicturePages
from masklet_media.rgb import to_rgb
from masklet_studio.frames.facts import VideoFacts

PICTURE_RATE = 30.0
"""Frames a second of pictures without times, as the server has it."""


class FrameReader(Protocol):
    """Gives the frames of one video by their number.

    Attributes:
        facts: What is known of the video. It may change when a frame turns out to be damaged.
    """

    facts: VideoFacts

    def picture(self, index: int) -> Image.Image:
        """The frame as shown, in mode RGB; `index` is below the number of frames."""
        ...


class PictureFolder:
    """A folder of pictures, in natural order of their names.

    Args:
        folder: Where the pictures are.

    Raises:
        InvalidArgument: There are none.
        OSError: The first one cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._files = picture_files(folder)
        first = self.picture(0)
        times = tuple(index / PICTURE_RATE for index in range(len(self._files)))
        self.facts = VideoFacts(first.width, first.height, PICTURE_RATE, times)

    def picture(self, index: int) -> Image.Image:
        """The frame as shown, in mode RGB."""
        return Image.fromarray(load_rgb(self._files[index]))


class PictureFile:
    """A file with several pictures: animated WebP, or TIFF with pages.

    Args:
        path: The file.

    Raises:
        OSError, SyntaxError, ValueError: It cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        times = tuple(float(page.pts * TIME_BASE) for page in PicturePages(self._file).pages())
        self._file.seek(0)
        self._image = Image.open(self._file)
        seconds = times[-1] - times[0] if len(times) > 1 else 0.0
        rate = (len(times) - 1) / seconds if seconds > 0 else PICTURE_RATE
        first = self.picture(0)
        self.facts = VideoFacts(first.width, first.height, rate, times)

    def picture(self, index: int) -> Image.Image:
        """The frame as shown, in mode RGB."""
        self._image.seek(index)
        self._image.load()
        return to_rgb(self._image)
