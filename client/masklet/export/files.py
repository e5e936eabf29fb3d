"""What the writers share: pictures, JSON that is written piece by piece, and names of frames."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from masklet._media.atomic_file import replacing
from masklet._protocol.results import Box, FrameResult
from masklet.errors import DataLoss
from masklet.export.formats import Settings
from masklet.recording import Recording, unprintable

JPEG_QUALITY = 95
_LONGEST_NAME = 200  # bytes; most file systems allow 255, and a number and a suffix follow
FRAME_NAME = "{:05d}"
"""How the files of a frame are called, after its number."""


def video_name(recording: Recording) -> str:
    """The name of the video's file without its suffix, fit for files and folders; "video" where it has none."""
    name = Path(recording.source).stem
    if name in ("", ".."):  # the folder where the program runs, or the one above
        name = Path(recording.source).resolve().name if recording.source else ""
    for character in unprintable(name):
        name = name.replace(character, "_")
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore") or "video"


def file_name(frame_index: int) -> str:
    """The name of a frame's picture."""
    return FRAME_NAME.format(frame_index) + ".jpg"


def with_pictures(recording: Recording, settings: Settings) -> Iterator[tuple[FrameResult, npt.NDArray[np.uint8]]]:
    """Each frame of the recording with its picture, ``uint8[H, W, 3]`` RGB, one at a time.

    Raises:
        InvalidArgument: Nobody knows which video it is, or it cannot be read here.
        DataLoss: The video cannot be decoded, ends before the results do, or has another size than they have.
        OSError: The video cannot be read.
    """
    from masklet._media.frames import matched, shown_frames  # brings PyAV

    return _checked(recording.size, matched(recording, shown_frames(settings.video_of(recording))))


def _checked(
    size: tuple[int, int], pairs: Iterable[tuple[FrameResult, npt.NDArray[np.uint8]]]
) -> Iterator[tuple[FrameResult, npt.NDArray[np.uint8]]]:
    height, width = size
    for frame, pixels in pairs:
        if pixels.shape[:2] != (height, width):
            raise DataLoss(
                f"frame {frame.frame_index} of the video is {pixels.shape[1]}x{pixels.shape[0]} pixels, the results "
                f"are {width}x{height}; is it the one that was tracked?"
            )
        yield frame, pixels


def write_pictures(recording: Recording, settings: Settings, folder: Path, name: Callable[[int], str]) -> None:
    """Write the recording's frames as JPEG, if `settings.pictures` asks for it.

    Args:
        recording: Whose frames.
        settings: Says which video, and whether.
        folder: Made if it does not exist.
        name: Gives the name of the file for the number of a frame.
    """
    if not settings.pictures:
        return
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for frame, pixels in with_pictures(recording, settings):
        Image.fromarray(pixels).save(folder / name(frame.frame_index), format="JPEG", quality=JPEG_QUALITY)


@contextlib.contextmanager
def text_file(path: Path) -> Iterator[IO[str]]:
    """A text file (UTF-8, lines end with a line feed) that appears when it is whole; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_json(path: Path, parts: Mapping[str, Any]) -> None:
    """Write an object as JSON; values that are iterators are written as lists, one item a line.

    Args:
        path: The file.
        parts: The object's keys and values.
    """
    with text_file(path) as file:
        file.write("{")
        for number, (key, value) in enumerate(parts.items()):
            file.write((",\n" if number else "\n") + json.dumps(key) + ": ")
            if isinstance(value, Iterator):
                write_list(file, value)
            else:
                file.write(json.dumps(value))
        file.write("\n}\n")


def write_list(file: IO[str], items: Iterable[Any]) -> None:
    """Write items as a JSON list, one a line."""
    file.write("[")
    for number, item in enumerate(items):
        file.write((",\n" if number else "\n") + json.dumps(item))
    file.write("\n]")


def corner_and_size(box: Box) -> list[float]:
    """COCO's form of a box: its left and top edges, its width and its height."""
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def relative(path: str | os.PathLike[str], folder: Path) -> str:
    """A path as it is seen from a folder, with forward slashes."""
    return Path(os.path.relpath(path, folder)).as_posix()
