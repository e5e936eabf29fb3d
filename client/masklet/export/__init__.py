"""Results in other people's formats.

    masklet.export.write(recording, "coco", "clip-coco.json")
    masklet.export.write(recording, "matte", "rabbit.mov", objects=[1])

`FORMATS` lists the formats. Each is written one frame, or one object, at a time, so the masks of a video are never in
memory together. `masklet.importing` reads some of the formats back.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from typing_extensions import Unpack

from masklet._media.atomic_file import naming, refuse_same_file
from masklet.errors import InvalidArgument
from masklet.export.formats import FORMATS, ExportFormat, ExportOptions, Settings, Shape
from masklet.export.progress import Progress, WatchedRecording
from masklet.recording import Recording

__all__ = ["FORMATS", "ExportFormat", "ExportOptions", "Progress", "Settings", "Shape", "write"]


def write(
    recording: Recording,
    to: str,
    path: str | os.PathLike[str],
    *,
    objects: Iterable[int] | None = None,
    progress: Progress | None = None,
    **options: Unpack[ExportOptions],
) -> None:
    """Write a recording in another format.

    Args:
        recording: The results.
        to: The name of the format, one of `FORMATS`.
        path: The file or the folder, as the format has it. A file is replaced if it exists, and appears when it is
            whole. A folder is made, and the files in it are replaced.
        objects: The objects to write; None: all.
        progress: Called with the number of frames that are done, and of all frames; formats that are written object by
            object begin again with each of them.
        **options: See `ExportOptions`.

    Raises:
        InvalidArgument: There is no such format, the path does not go with it, an option is wrong, the path is the
            video's own, or the results contradict one another.
        NotFound: There is no object of one of the ids in `objects`.
        DataLoss: The video is needed, and cannot be decoded or ends before the results.
        OSError: A file cannot be read or written.
    """
    if to not in FORMATS:
        raise InvalidArgument.of("to", f"is {to!r}, must be one of {', '.join(FORMATS)}")
    settings = Settings.of(options)
    FORMATS[to].check(Path(path), settings)
    chosen = recording if objects is None else recording.only(objects)
    _check_path(recording, Path(path), settings)
    _check_results(chosen)
    if progress is not None:
        chosen = WatchedRecording(chosen, progress)
    with naming(Path(path)):
        FORMATS[to].writer()(chosen, Path(path), settings)


def _check_path(recording: Recording, path: Path, settings: Settings) -> None:
    """Refuse to write over the video that the results belong to."""
    for video in (settings.video, recording.source):
        refuse_same_file(video, path, "path")


def _check_results(recording: Recording) -> None:
    """Refuse results that cannot be those of one video, before a file is written."""
    size = None
    for frame in recording:
        if not math.isfinite(frame.pts_seconds):
            raise InvalidArgument.of("recording", f"frame {frame.frame_index} has the time {frame.pts_seconds}")
        for object_id, result in frame.objects.items():
            size = size or recording.size
            where = f"object {object_id} on frame {frame.frame_index}"
            height, width = result.rle["size"]
            if (height, width) != size:
                raise InvalidArgument.of(
                    "recording", f"{where} has a mask of {width}x{height} pixels, the video is {size[1]}x{size[0]}"
                )
            if result.visible and (result.box is None or result.area == 0):
                raise InvalidArgument.of("recording", f"{where} is visible, but has no box or an empty mask")
