"""The files that `masklet track` writes while frames arrive."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

import masklet
from masklet._media.atomic_file import replacing
from masklet._media.result_files import frame_to_dict, header
from masklet._protocol.results import FrameResult, VideoInfo
from masklet.drawing import MAX_INDEX

Sink = Callable[[FrameResult], None]


class MaskFolder:
    """Writes the masks of every frame as an indexed PNG, as DAVIS's annotations are: 00000.png and so on.

    A pixel of such a file belongs to one object, and there are 255 of them. Where masks overlap, or an id is larger,
    the frame's masks are also written one by one: objects/2/00000.png.

    Attributes:
        folder: The folder.
        separate_frames: Frames so far whose masks were also written one by one.

    Args:
        folder: Made if it does not exist.
        size: Returns the video's height and width; called when the first frame is here.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, folder: Path, size: Callable[[], tuple[int, int]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.separate_frames = 0
        self._size = size

    def __call__(self, frame: FrameResult) -> None:
        """Write the masks of a frame."""
        masks, name = frame.masks, f"{frame.frame_index:05d}.png"
        indexed = {object_id: mask for object_id, mask in masks.items() if object_id <= MAX_INDEX}
        masklet.save_indexed_masks(self.folder / name, indexed, size=self._size())
        if len(indexed) == len(masks) and not _overlap(masks.values()):
            return
        self.separate_frames += 1
        for object_id, mask in masks.items():
            folder = self.folder / "objects" / str(object_id)
            folder.mkdir(parents=True, exist_ok=True)
            masklet.save_mask(folder / name, mask)


def _overlap(masks: Iterable[npt.NDArray[np.bool_]]) -> bool:
    seen: npt.NDArray[np.bool_] | None = None
    for mask in masks:
        if seen is not None and (seen & mask).any():
            return True
        seen = mask if seen is None else seen | mask
    return False


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
