"""Results in other people's formats.

    masklet.export.write(recording, "coco", "clip-coco.json")
    masklet.export.write(recording, "matte", "rabbit.mov", objects=[1])

`FORMATS` lists the formats. Each is written one frame, or one object, at a time, so the masks of a video are never in
memory together. `masklet.importing` reads some of the formats back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from typing_extensions import Unpack

from masklet.errors import InvalidArgument
from masklet.export.formats import FORMATS, ExportFormat, ExportOptions, Settings, Shape
from masklet.recording import Recording

__all__ = ["FORMATS", "ExportFormat", "ExportOptions", "Settings", "Shape", "write"]


def write(
    recording: Recording,
    to: str,
    path: str | os.PathLike[str],
    *,
    objects: Iterable[int] | None = None,
    **options: Unpack[ExportOptions],
) -> None:
    """Write a recording in another format.

    Args:
        recording: The results.
        to: The name of the format, one of `FORMATS`.
        path: The file or the folder, as the format has it. A file is replaced if it exists, and appears when it is
            whole. A folder is made, and the files in it are replaced.
        objects: The objects to write; None: all.
        **options: See `ExportOptions`.

    Raises:
        InvalidArgument: There is no such format, the path does not go with it, or an option is wrong.
        NotFound: There is no object of one of the ids in `objects`.
        DataLoss: The video is needed, and cannot be decoded or ends before the results.
        OSError: A file cannot be read or written.
    """
    if to not in FORMATS:
        raise InvalidArgument.of("to", f"is {to!r}, must be one of {', '.join(FORMATS)}")
    settings = Settings.of(options)
    FORMATS[to].check(Path(path), settings)
    chosen = recording if objects is None else recording.only(objects)
    FORMATS[to].writer()(chosen, Path(path), settings)
