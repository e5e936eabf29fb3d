"""A detector's output for many clips in one file: each clip gets the boxes that name it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from masklet.batch.clips import Clip
from masklet.errors import InvalidArgument
from masklet.importing.prompts import PromptFile, prompts_of_boxes

_CLIP_KEYS = ("clip", "video", "file_name", "path")


def with_detections(clips: Sequence[Clip], path: str | os.PathLike[str], *, min_score: float = 0.0) -> list[Clip]:
    """The clips with a detector's boxes as their prompts. In a clip without boxes there is nothing to track.

    Args:
        clips: The clips.
        path: JSON, or JSON Lines: a list of boxes as COCO's results or Ultralytics' ``to_json`` have them, each with
            the key `clip` (or `video`, `file_name`, `path`), or with an `image_id` such as ``a_000012``, frame 12 of
            clip a; or an object with such a list for each clip. A clip is named by its name, its file's name, or that
            without the suffix.
        min_score: Boxes with a lower score are left out.

    Raises:
        InvalidArgument: The file is something else, or a box names a clip that is not there or that is not the only
            one of its name.
        OSError: It cannot be read.
    """
    place = Path(path)
    by_word = _by_word(clips)
    found: dict[str, list[dict[str, Any]]] = {}
    for word, boxes in _groups(place, only=clips[0].name if len(clips) == 1 else None):
        named = by_word.get(word, [])
        if len(named) != 1:
            what = "is none of the clips" if not named else f"is the name of {len(named)} clips"
            raise InvalidArgument.of("detections", f"{place}: {word!r} {what}; use the clips' whole names")
        found.setdefault(named[0], []).extend(boxes)
    return [replace(clip, prompts=_prompts(found.get(clip.name), place, min_score)) for clip in clips]


def _prompts(boxes: list[dict[str, Any]] | None, path: Path, min_score: float) -> PromptFile:
    if boxes is None:
        return PromptFile([])
    try:
        every = prompts_of_boxes(boxes, path, 0.0)  # a file that is wrong is not one without good boxes
    except InvalidArgument as error:
        raise InvalidArgument.of("detections", error.violations[0].description) from None
    if not min_score:
        return every
    try:
        return prompts_of_boxes(boxes, path, min_score)
    except InvalidArgument:
        return PromptFile([])


def _by_word(clips: Iterable[Clip]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    names = {clip.name for clip in clips}
    for clip in clips:
        words = {clip.name, clip.video.name, clip.video.stem, str(clip.video)}
        for word in words:
            if word == clip.name or word not in names:  # a whole name is meant before a part of another one
                found.setdefault(word, []).append(clip.name)
    return found


def _groups(path: Path, only: str | None) -> list[tuple[str, list[dict[str, Any]]]]:
    content = _content(path)
    if isinstance(content, dict) and ("bbox" in content or "box" in content):
        content = [content]  # JSON Lines with one line
    if isinstance(content, dict):
        if not all(isinstance(boxes, list) for boxes in content.values()):
            raise InvalidArgument.of("detections", f"{path} must have a list of boxes for each clip")
        return list(content.items())
    if not isinstance(content, list) or not all(isinstance(box, dict) for box in content):
        raise InvalidArgument.of(
            "detections", f"{path} is neither a list of boxes nor an object with one for each clip"
        )
    return [(_clip_of(box, path, only), [box]) for box in content]


def _content(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument.of("detections", f"{path} is not text in UTF-8: {error}") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                lines.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise InvalidArgument.of("detections", f"{path}: line {number} is not JSON: {error}") from None
    return lines


def _clip_of(box: Mapping[str, Any], path: Path, only: str | None) -> str:
    for key in _CLIP_KEYS:
        if isinstance(box.get(key), str):
            return str(box[key])
    image = str(box.get("image_id", ""))
    before, underscore, frame = image.rpartition("_")
    if underscore and frame.isdecimal() and before:
        return before
    if only is not None:
        return only
    raise InvalidArgument.of(
        "detections", f"{path} has a box that does not say of which clip it is; add the key 'clip' to each"
    )
