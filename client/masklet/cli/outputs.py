"""The files that `masklet track` writes while frames arrive."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import masklet
from masklet._media.atomic_file import replacing
from masklet._protocol.results import FrameResult, ObjectResult, VideoInfo

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
            header = video()
            file.write(f'{{"video": {json.dumps(header and dataclasses.asdict(header))}, "frames": [')
            begun = True

        def write(frame: FrameResult) -> None:
            if begun:
                file.write(",\n")
            else:
                begin()
            file.write(json.dumps(_frame(frame)))

        yield write
        if not begun:
            begin()
        file.write("]}\n")


def _frame(frame: FrameResult) -> dict[str, Any]:
    return {
        "frame_index": frame.frame_index,
        "pts_seconds": frame.pts_seconds,
        "objects": [_object(result) for result in frame.objects.values()],
    }


def _object(result: ObjectResult) -> dict[str, Any]:
    return {
        "object_id": result.object_id,
        "rle": result.rle,
        "box": result.box,
        "area": result.area,
        "predicted_iou": result.predicted_iou,
        "object_score": result.object_score,
        "visible": result.visible,
        "event": result.event,
    }
