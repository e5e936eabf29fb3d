"""Reads files of prompts: masklet's own (JSON or YAML), a detector's boxes, and masks of other tools.

masklet's own is a list, or an object with the list under "prompts". An entry is for one object on one frame:

    {"object": 1, "name": "rabbit", "class": "animal", "frame": 0, "points": [[345, 400], [600, 300, 0]]}
    {"object": 2, "time": 1.5, "box": [60, 260, 260, 620]}
    {"object": 3, "frame": 12, "mask": "dog.png"}

A point's third number is its label: 1 on the object (the default), 0 beside it. A mask is a picture as large as the
video, its path as seen from the file, or run-lengths as masklet writes them. Of a picture with several objects, the one
with the entry's own id is meant.

A detector's file is a list of COCO's results, or what Ultralytics' ``to_json`` writes. Every box on the first frame
that has any is an object of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet import rle
from masklet._media.mask_files import read_mask_file
from masklet.errors import InvalidArgument, Unavailable
from masklet.importing import read
from masklet.prompts import Prompt
from masklet.recording import RecordedObject

_YAML = (".yaml", ".yml")
_KEYS = {"object", "name", "class", "frame", "time", "points", "box", "mask", "keep_old_points"}


@dataclass(frozen=True)
class PromptFile:
    """What a file of prompts holds.

    Attributes:
        prompts: In the order of the file.
        objects: The objects that the file names, by id.
    """

    prompts: list[Prompt]
    objects: dict[int, RecordedObject] = field(default_factory=dict)


def read_prompts(path: str | os.PathLike[str], *, min_score: float = 0.0) -> PromptFile:
    """Read a file of prompts.

    Args:
        path: A file of prompts, a detector's file, or masks as `masklet.importing.read` takes them, whose first mask of
            each object is its prompt.
        min_score: Boxes of a detector with a lower score are left out.

    Raises:
        InvalidArgument: The file holds something else, or an entry is wrong; the message says which one.
        Unavailable: It is YAML, and PyYAML is not installed.
        OSError: It cannot be read.
    """
    place = Path(path)
    content = _content(place)
    if isinstance(content, dict) and "prompts" in content:
        content = content["prompts"]
    if isinstance(content, list) and all(isinstance(entry, dict) for entry in content):
        if any("bbox" in entry or "confidence" in entry for entry in content):
            return prompts_of_boxes(content, place, min_score)
        return prompts_of_entries(content, place)
    masks = read(place)
    return PromptFile(masks.prompts(), dict(masks.objects))


def _content(path: Path) -> Any:
    """What a file of JSON or YAML holds; None for other files and folders."""
    if path.is_dir():
        return None
    if path.suffix.lower() in _YAML:
        try:
            import yaml
        except ModuleNotFoundError:
            raise Unavailable("YAML needs PyYAML, which is not installed: pip install 'masklet[yaml]'") from None
        try:
            return yaml.safe_load(path.read_text(encoding="utf-8"))
        except (
            yaml.YAMLError,
            ValueError,
            RecursionError,
        ) as error:  # ValueError: no UTF-8, or a date such as 2026-13-41
            raise InvalidArgument.of("prompts", f"{path} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def prompts_of_entries(entries: Iterable[dict[str, Any]], path: Path) -> PromptFile:
    """The prompts of masklet's own entries.

    Args:
        entries: As a file of prompts has them.
        path: The file, for errors; pictures of masks are looked for beside it.

    Raises:
        InvalidArgument: An entry is wrong, or there is none.
        OSError: A picture cannot be read.
    """
    found = PromptFile([])
    for number, entry in enumerate(entries):
        where = f"{path}: prompts[{number}]"
        if unknown := sorted(map(str, entry.keys() - _KEYS)):
            raise InvalidArgument.of(
                "prompts", f"{where} has the unknown key {unknown[0]!r}; keys are {', '.join(sorted(_KEYS))}"
            )
        try:
            prompt = _prompt(entry, path.parent)
        except InvalidArgument as error:
            raise InvalidArgument.of("prompts", f"{where}: {error}") from None
        except KeyError as error:
            raise InvalidArgument.of("prompts", f"{where}: the mask has no {error.args[0]!r}") from None
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidArgument.of("prompts", f"{where} has a value of the wrong kind: {error}") from None
        found.prompts.append(prompt)
        earlier = found.objects.get(prompt.object_id, RecordedObject(prompt.object_id))
        name = _text(entry, "name", where) or earlier.name
        class_name = _text(entry, "class", where) or earlier.class_name
        found.objects[prompt.object_id] = RecordedObject(prompt.object_id, name, class_name)
    if not found.prompts:
        raise InvalidArgument.of("prompts", f"{path} holds no prompt")
    return found


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, (str, type(None))):
        raise InvalidArgument.of("prompts", f"{where}: {key} is {value!r}, must be text")
    return value or ""


def _prompt(entry: dict[str, Any], folder: Path) -> Prompt:
    if not isinstance(entry.get("keep_old_points", False), bool):
        raise ValueError(f"keep_old_points is {entry['keep_old_points']!r}, must be true or false")
    points = entry.get("points")
    coords = labels = None
    if points:
        coords = [point[:2] for point in points]
        labels = [point[2] if len(point) > 2 else 1 for point in points]
    return Prompt(
        object_id=entry.get("object", 1),
        frame_index=entry.get("frame", 0),
        point_coords=coords,
        point_labels=labels,
        box=entry.get("box"),
        mask=None if entry.get("mask") is None else _mask(entry["mask"], folder, entry.get("object", 1)),
        keep_old_points=entry.get("keep_old_points", False),
        pts_seconds=entry.get("time"),
    )


def _mask(value: Any, folder: Path, object_id: Any) -> npt.NDArray[np.bool_]:
    if isinstance(value, dict):
        return rle.decode(rle.Rle(size=[int(side) for side in value["size"]], counts=str(value["counts"])))
    if not isinstance(value, str):
        raise ValueError(f"mask is {value!r}, must be the path of a picture, or run-lengths")
    masks = read_mask_file(folder / value)
    if len(masks) > 1 and object_id not in masks:
        listed = ", ".join(map(str, masks))
        raise InvalidArgument.of("mask", f"{value} has the objects {listed}, and not {object_id}")
    return masks[object_id] if object_id in masks else next(iter(masks.values()))


def prompts_of_boxes(entries: list[dict[str, Any]], path: Path, min_score: float) -> PromptFile:
    """The prompts of a detector's boxes: each on the first frame that has any is an object.

    Args:
        entries: As COCO's results or Ultralytics' ``to_json`` have them.
        path: The file, for errors.
        min_score: Boxes with a lower score are left out.

    Raises:
        InvalidArgument: An entry is wrong, or no box is left.
    """
    try:
        boxes = [_detection(entry) for entry in entries]
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidArgument.of("prompts", f"{path} is not a detector's list of boxes: {error!r}") from None
    boxes = [box for box in boxes if box[1] >= min_score]
    if not boxes:
        raise InvalidArgument.of("prompts", f"{path} holds no box with a score of at least {min_score:g}")
    first = min(frame_index for frame_index, *_ in boxes)
    found = PromptFile([])
    for frame_index, _, box, class_name in boxes:
        if frame_index == first:
            object_id = len(found.prompts) + 1
            try:
                found.prompts.append(Prompt(object_id=object_id, frame_index=frame_index, box=box))
            except InvalidArgument as error:
                raise InvalidArgument.of("prompts", f"{path}: box {object_id} of frame {first}: {error}") from None
            found.objects[object_id] = RecordedObject(object_id, "", class_name)
    return found


def _detection(entry: dict[str, Any]) -> tuple[int, float, list[float], str]:
    """A box's frame, score, corners and class."""
    if "bbox" in entry:  # COCO's results
        x, y, width, height = (float(value) for value in entry["bbox"])
        image_id = entry.get("image_id", 0)
        digits = "".join(c for c in str(image_id).rpartition("_")[2] if c.isdecimal())
        name = str(entry.get("category_name", entry.get("category", "")))
        return int(digits or 0), float(entry.get("score", 1.0)), [x, y, x + width, y + height], name
    corners = entry["box"]  # Ultralytics
    box = [float(corners[name]) for name in ("x1", "y1", "x2", "y2")]
    return int(entry.get("frame", 0)), float(entry["confidence"]), box, str(entry.get("name", ""))
