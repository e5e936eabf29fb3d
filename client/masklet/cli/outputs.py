"""The files that `masklet track` writes while frames arrive."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

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


@contextlib.contextmanager
def json_file(path: Path, video: Callable[[], VideoInfo | None]) -> Iterator[Sink]:
    """Write all results as one JSON object, frame by frame; the file appears when it is whole.

    Args:
        path: The file, replaced if it exists.
        video: Returns what is known of the video; called when the first frame is here.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        begun = False

        def begin() -> None:
            nonlocal begun
            file.write(json.dumps(header(video()))[:-1] + ', "frames": [')
            begun = True

        def write(frame: FrameResult) -> None:
            if begun:
                file.write(",\n")
            else:
                begin()
            file.write(json.dumps(frame_to_dict(frame)))

        yield write
        if not begun:
            begin()
        file.write("]}\n")
