"""Reads folders of PNGs as DAVIS and YouTube-VOS have them: a pixel's value is the id of its object, 0 the background.

`masklet track --masks` writes such a folder, too; its folder `objects` has the whole masks of frames that overlap.

PNGs of black and white alone (DAVIS 2016) are one object, 1. A file's number is its frame's; where names are no
numbers, their order counts. YouTube-VOS's meta.json, in a folder above, names the objects.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from masklet._media.pictures import damage_named
from masklet._media.uploads import picture_files
from masklet._protocol.results import ObjectResult, VideoInfo
from masklet.errors import InvalidArgument
from masklet.importing.masks import FRAME_RATE, frame_of, result_of
from masklet.recording import Recording

_WHITE = 255
_OBJECTS = "objects"


def read(path: Path, video: str | None) -> Recording:
    """Read a folder; arguments and errors are those of `masklet.importing.read`."""
    folder = _folder_with_masks(path, video)
    files = [file for file in picture_files(folder) if file.suffix.lower() == ".png"]
    are_numbers = all(file.stem.isdecimal() for file in files)
    found, size = Recording(), (0, 0)
    for place, file in enumerate(files):
        pixels = _pixels(file)
        if place and pixels.shape != size:
            raise InvalidArgument.of("path", f"{file} has another size than the pictures before it")
        size = pixels.shape
        results = {i: result_of(i, pixels == i) for i in np.unique(pixels).tolist() if i}
        results.update(_whole_masks(folder, file.name, size))
        found.add(frame_of(int(file.stem) if are_numbers else place, results))
    if not found.objects:
        raise InvalidArgument.of("path", f"the PNGs in {folder} hold no object: all pixels are 0")
    count = found.frame_count
    found.video = VideoInfo(size[0], size[1], FRAME_RATE, count / FRAME_RATE, count, "pictures", "pictures", 0)
    _name(found, folder)
    return found


def _folder_with_masks(path: Path, video: str | None) -> Path:
    """The one folder at or below a path that has PNGs."""
    folders = sorted({file.parent for file in path.rglob("*.png")})
    folders = [folder for folder in folders if folder.parent.name != _OBJECTS or folder.parent.parent not in folders]
    if video is not None:
        named = [folder for folder in folders if folder.name == video]
        if not named:
            known = ", ".join(sorted({folder.name for folder in folders})) or "none"
            raise InvalidArgument.of("video", f"is {video!r}, must name one of the folders with PNGs: {known}")
        folders = named
    if not folders:
        raise InvalidArgument.of("path", f"the folder {path} holds no PNGs, so there are no masks in it")
    if len(folders) > 1:
        names = ", ".join(folder.relative_to(path).as_posix() for folder in folders[:5])
        raise InvalidArgument.of("video", f"must name one of the videos in {path}: {names}")
    return folders[0]


def _whole_masks(folder: Path, name: str, size: tuple[int, int]) -> dict[int, ObjectResult]:
    """The masks of a frame that `masklet track --masks` wrote one by one, because they overlap."""
    found = {}
    for file in (folder / _OBJECTS).glob(f"*/{name}"):
        if file.parent.name.isdecimal():
            mask = _pixels(file) > 0
            if mask.shape != size:
                raise InvalidArgument.of("path", f"{file} has another size than the frame's picture")
            found[int(file.parent.name)] = result_of(int(file.parent.name), mask)
    return found


def _pixels(file: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with damage_named("path", str(file)), Image.open(file) as picture:
            if picture.mode not in ("P", "L", "1"):
                raise InvalidArgument.of(
                    "path", f"{file} has colours, not the ids of objects; it must be an indexed PNG"
                )
            pixels: npt.NDArray[np.uint8] = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
            is_gray = picture.mode != "P"
    except UnidentifiedImageError:
        raise InvalidArgument.of("path", f"{file} is not a picture") from None
    if is_gray and np.isin(pixels, (0, _WHITE)).all():
        return np.asarray((pixels == _WHITE).astype(np.uint8))
    return pixels


def _name(found: Recording, folder: Path) -> None:
    """Take the objects' classes from YouTube-VOS's meta.json, if there is one that knows this video."""
    for parent in list(folder.parents)[:2]:
        if (parent / "meta.json").is_file():
            try:
                videos = json.loads((parent / "meta.json").read_bytes()).get("videos", {})
                for object_id, entry in videos.get(folder.name, {}).get("objects", {}).items():
                    found.name(int(object_id), class_name=str(entry.get("category", "")))
            except (ValueError, AttributeError, RecursionError) as error:
                raise InvalidArgument.of("path", f"{parent / 'meta.json'} is not YouTube-VOS's: {error}") from None
            return
