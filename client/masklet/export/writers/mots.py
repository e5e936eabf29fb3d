"""MOTSChallenge (https://www.vision.rwth-aachen.de/page/mots): masks as text, and as PNGs of 16 bits.

    seqinfo.ini
    gt/gt.txt                  FRAME ID CLASS HEIGHT WIDTH RLE
    instances/000001.png       pixels are IDs
    img1/000001.jpg

A path that ends in .txt gets the text alone. Frames count from 1. An id is CLASS * 1000 + the object's number. Cars are
1, pedestrians 2; other classes follow from 3 on, without 10, which means "ignore". Masks never overlap: a pixel that
belongs to several objects goes to the highest id, and a mask that vanishes so is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from masklet import rle
from masklet._protocol.results import FrameResult
from masklet.errors import InvalidArgument
from masklet.export.files import text_file
from masklet.export.formats import Settings
from masklet.export.writers.mot import write_sequence
from masklet.recording import Recording

_KNOWN = {"car": 1, "pedestrian": 2, "person": 2, "object": 2}
_IGNORE = 10
_FIRST_OWN = 3
_STEP = 1000


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write text, PNGs and seqinfo.ini into a folder, or the text alone into one file.

    Raises:
        InvalidArgument: There are more objects or classes than the format has numbers for.
    """
    ids = _ids(recording)
    is_text = path.suffix.lower() == ".txt"
    instances = path / "instances"
    if not is_text:
        instances.mkdir(parents=True, exist_ok=True)
    with text_file(path if is_text else path / "gt" / "gt.txt") as file:
        for frame in recording:
            pixels = _pixels(frame, ids, recording.size)
            for number, mask in _parts(pixels):
                height, width = mask.shape
                counts = rle.encode(mask)["counts"]
                file.write(f"{frame.frame_index + 1} {number} {number // _STEP} {height} {width} {counts}\n")
            if not is_text:
                _save(pixels, instances / f"{frame.frame_index + 1:06d}.png")
    if not is_text:
        write_sequence(recording, path, settings)


def _ids(recording: Recording) -> dict[int, int]:
    """The format's id of each object."""
    classes: dict[str, int] = {}
    for name in recording.class_names:
        known = _KNOWN.get(name.lower())
        taken = set(classes.values()) | {_IGNORE}
        classes[name] = known or next(n for n in range(_FIRST_OWN, len(taken) + _FIRST_OWN + 1) if n not in taken)
    keep = all(object_id < _STEP for object_id in recording.objects)
    ids = {}
    for number, (object_id, found) in enumerate(recording.objects.items(), start=1):
        ids[object_id] = classes[found.category] * _STEP + (object_id if keep else number)
    if len(ids) >= _STEP or max(ids.values(), default=0) >= 1 << 16:
        raise InvalidArgument.of("recording", "has too many objects or classes for MOTS; export fewer: objects=[...]")
    return ids


def _pixels(frame: FrameResult, ids: dict[int, int], size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    pixels = np.zeros(size, np.uint16)
    for object_id, result in frame.objects.items():
        if result.visible:
            pixels[result.mask] = ids[object_id]
    return pixels


def _parts(pixels: npt.NDArray[np.uint16]) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    for number in np.unique(pixels).tolist():
        if number:
            yield number, pixels == number


def _save(pixels: npt.NDArray[np.uint16], path: Path) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG")
