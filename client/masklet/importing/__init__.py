"""Masks from other people's formats, as a `Recording`: to be prompts, or to be written in another format.

    masks = masklet.importing.read("annotations.xml")          # CVAT
    for frame in client.track("clip.mp4", masks.prompts()):    # goes on from the first mask of each object
        ...

It reads COCO and YouTube-VIS (``.json``), CVAT (``.xml``), DAVIS and YouTube-VOS (a folder of PNGs), and masklet's own
files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from masklet.errors import InvalidArgument
from masklet.recording import Recording

__all__ = ["read"]

_PARQUET = b"PAR1"


def read(path: str | os.PathLike[str], *, video: str | None = None) -> Recording:
    """Read masks; what is in the file says which format it is.

    Args:
        path: A file, or a folder of PNGs.
        video: The name of the video to read, where the file or the folder holds several.

    Returns:
        The masks. Scores that the format does not have are those of a mask beyond doubt: `predicted_iou` 1.

    Raises:
        InvalidArgument: It is none of the formats, or damaged, or it holds several videos and none is named.
        OSError: It cannot be read.
    """
    place = Path(path)
    name = _format_of(place)
    if name == "masklet":
        return Recording.load(place)
    reader: Callable[[Path, str | None], Recording] = import_module(f"masklet.importing.{name}").read
    return reader(place, video)


def _format_of(path: Path) -> str:
    if path.is_dir():
        return "davis"
    with path.open("rb") as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t")
    if start.startswith(_PARQUET):
        return "masklet"
    if start.startswith(b"<"):
        return "cvat"
    if not start.startswith((b"{", b"[")):
        raise InvalidArgument.of(
            "path", f"{path} is neither JSON nor XML nor a folder of PNGs, so its masks cannot be read"
        )
    try:
        whole = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "masklet"  # JSON Lines, or damaged; `Recording.load` says what is wrong
    return "coco" if isinstance(whole, dict) and "annotations" in whole else "masklet"
