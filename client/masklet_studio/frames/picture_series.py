"""Frames that are pictures of their own: a folder of files, or a file with several pictures."""

from __future__ import annotations

from typing import IO, Protocol

from PIL import Image

from masklet._media.pictures import load_rgb
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

    def picture(self, index: int, data: bytes = b"") -> Image.Image:
        """The frame as shown, in mode RGB.

        Args:
            index: Below the number of frames.
            data: The frame's own file, where each frame has one.
        """
        ...


class PictureFolder:
    """A folder of pictures. Its files are read by who may open files; this decodes what they hold.

    Args:
        count: How many pictures there are.
        first: The first picture's file.

    Raises:
        InvalidArgument: The first one is no picture.
    """

    def __init__(self, count: int, first: bytes) -> None:
        shown = self.picture(0, first)
        times = tuple(index / PICTURE_RATE for index in range(count))
        self.facts = VideoFacts(shown.width, shown.height, PICTURE_RATE, times)

    def picture(self, index: int, data: bytes = b"") -> Image.Image:
        """The frame as shown, in mode RGB; `data` is its file."""
        return Image.fromarray(load_rgb(data, field=f"picture {index}"))


class PictureFile:
    """A file with several pictures: animated WebP, or TIFF with pages.

    Args:
        file: The file, which belongs to this object from now on.

    Raises:
        OSError, SyntaxError, ValueError: It cannot be decoded.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        times = tuple(float(page.pts * TIME_BASE) for page in PicturePages(self._file).pages())
        self._file.seek(0)
        self._image = Image.open(self._file)
        seconds = times[-1] - times[0] if len(times) > 1 else 0.0
        rate = (len(times) - 1) / seconds if seconds > 0 else PICTURE_RATE
        first = self.picture(0)
        self.facts = VideoFacts(first.width, first.height, rate, times)

    def picture(self, index: int, data: bytes = b"") -> Image.Image:
        """The frame as shown, in mode RGB; `data` means nothing here."""
        self._image.seek(index)
        self._image.load()
        return to_rgb(self._image)
