"""The files that `masklet track` writes while frames arrive."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import masklet
from masklet._media.atomic_file import replacing
from masklet._media.result_files import frame_to_dict, header
from masklet._protocol.results import FrameResult, VideoInfo

Sink = Callable[[FrameResult], None]


def mask_folder(folder: Path, size: Callable[[], tuple[int, int]]) -> Sink:
    """Write the masks of every frame as an indexed PNG, as DAVIS's annotations are: 00000.png and so on.

    Args:
        folder: Made if it does not exist.
        size: Returns the video's height and width; called when the first frame is here.

    Raises:
        OSError: The folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(frame: FrameResult) -> None:
        masklet.save_indexed_masks(folder / f"{frame.frame_index:05d}.png", frame.masks, size=size())

    return write


class Described(Protocol):
    """What a running call knows of its video; `masklet.Tracking` is one."""

    @property
    def video(self) -> VideoInfo | None:
        """What the video's header says."""

    @property
    def undecoded_pts_seconds(self) -> tuple[float, ...]:
        """Times of the frames that could not be decoded."""


@contextlib.contextmanager
def json_file(path: Path, call: Described) -> Iterator[Sink]:
    """Write all results as one JSON object, frame by frame; the file appears at the end.

    If the block ends with an error after some frames, the file has these frames, and says what the error was.

    Args:
        path: The file, replaced if it exists.
        call: Knows the video.

    Raises:
        OSError: The file cannot be written.
    """
    failure: BaseException | None = None
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        begun = False

        def begin() -> None:
            nonlocal begun
            file.write(json.dumps(header(call.video))[:-1] + ', "frames": [')
            begun = True

        def write(frame: FrameResult) -> None:
            if begun:
                file.write(",\n")
            else:
                begin()
            file.write(json.dumps(frame_to_dict(frame)))

        try:
            yield write
        except BaseException as error:
            if not begun:
                raise
            failure = error
        if not begun:
            begin()
        undecoded = json.dumps(call.undecoded_pts_seconds)
        message = json.dumps(None if failure is None else str(failure) or type(failure).__name__)
        file.write(f'],\n"undecoded_pts_seconds": {undecoded}, "error": {message}}}\n')
    if failure is not None:
        raise failure
