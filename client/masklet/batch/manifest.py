"""Manifests: a file with a line for each clip, which says what to track in it.

CSV has a line of headings; JSON Lines has an object on each line, with the same keys:

    clip,prompts,start,end,direction,names
    videos/a.mp4,prompts/a.json,,,forward,1=rabbit:animal;2=tree

    {"clip": "videos/b.mp4", "prompts": [{"object": 1, "points": [[345, 400]]}], "end": "4.5s"}

`clip` alone is needed. Paths are as seen from the manifest. `name` gives the clip another name than its path. In JSON
Lines, `prompts` may also be a list, as files of prompts have it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from masklet.batch.clips import Clip, check_names
from masklet.errors import InvalidArgument
from masklet.importing.prompts import PromptFile, prompts_of_entries
from masklet.recording import RecordedObject

KEYS = ("clip", "name", "prompts", "start", "end", "direction", "names")


def read_manifest(path: str | os.PathLike[str]) -> list[Clip]:
    """The clips of a manifest, in its order.

    Args:
        path: ``.csv``, or ``.jsonl``, JSON Lines.

    Raises:
        InvalidArgument: The file is neither, or a line is wrong; the message says which one.
        OSError: It cannot be read.
    """
    place = Path(path)
    lines = _csv_lines(place) if place.suffix.lower() == ".csv" else _json_lines(place)
    clips: list[Clip] = []
    lines_of: dict[str, int] = {}
    for number, line in lines:
        where = f"{place}: line {number}"
        if unknown := [key for key in line if key not in KEYS]:
            raise InvalidArgument.of(
                "manifest", f"{where} has the unknown key {unknown[0]!r}; keys are {', '.join(KEYS)}"
            )
        try:
            clips.append(_clip(line, place))
        except InvalidArgument as error:
            raise InvalidArgument.of("manifest", f"{where}: {error}") from None
        except OSError as error:
            raise InvalidArgument.of(
                "manifest", f"{where}: {error.filename} cannot be read: {error.strerror}"
            ) from None
        if (earlier := lines_of.setdefault(clips[-1].name, number)) != number:
            raise InvalidArgument.of(
                "manifest",
                f"{where}: this clip and that of line {earlier} are both called {clips[-1].name}; give one of them "
                "another name: the key 'name'",
            )
    if not clips:
        raise InvalidArgument.of("manifest", f"{place} holds no clip")
    try:
        check_names(clips)
    except InvalidArgument as error:
        raise InvalidArgument.of("manifest", f"{place}: {error.violations[0].description}") from None
    return clips


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            headings = list(reader.fieldnames or ())
            if twice := [heading for heading in headings if headings.count(heading) > 1]:
                raise InvalidArgument.of("manifest", f"{path}: line 1 has the heading {twice[0]!r} twice; remove one")
            for line in reader:
                where = f"{path}: line {reader.line_num}"
                if None in line or None in line.values():
                    raise InvalidArgument.of(
                        "manifest", f"{where} has not as many values as the first line has headings"
                    )
                yield reader.line_num, {key: value for key, value in line.items() if value != ""}
        except UnicodeDecodeError as error:
            raise InvalidArgument.of("manifest", f"{path} is not text in UTF-8: {error}; save it as UTF-8") from None
        except csv.Error as error:
            raise InvalidArgument.of("manifest", f"{path}: line {reader.line_num} is not CSV: {error}") from None


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise InvalidArgument.of("manifest", f"{path}: line {number} is not JSON: {error}") from None
            if not isinstance(line, dict):
                raise InvalidArgument.of("manifest", f"{path}: line {number} must be an object such as {{'clip': ...}}")
            yield number, {key: value for key, value in line.items() if value is not None}


def _clip(line: Mapping[str, Any], manifest: Path) -> Clip:
    for key in ("clip", "name", "direction"):
        if not isinstance(line.get(key, "text"), str):
            raise InvalidArgument.of(key, f"is {line[key]!r}, must be text")
    if not line.get("clip"):
        raise InvalidArgument.of("clip", "is missing; it is the path of the video, as seen from the manifest")
    written = Path(line["clip"])
    is_within = not written.is_absolute() and ".." not in written.parts
    return Clip(
        name=line.get("name") or (written.as_posix() if is_within else written.name),
        video=manifest.parent / written,
        prompts=_prompts(line.get("prompts"), manifest),
        start=_mark(line, "start"),
        end=_mark(line, "end"),
        direction=line.get("direction", "forward"),
        names=_names(line.get("names")),
    )


def _prompts(value: Any, manifest: Path) -> Path | PromptFile | None:
    if value is None:
        return None
    if isinstance(value, str):
        return manifest.parent / value
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return prompts_of_entries(value, manifest)
    raise InvalidArgument.of("prompts", f"are {value!r}, must be the path of a file, or a list of objects")


def _mark(line: Mapping[str, Any], key: str) -> str | None:
    value = line.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidArgument.of(key, f'is {value!r}, must be a frame, such as 120, or a time, such as "4.5s"')


def _names(value: Any) -> dict[int, RecordedObject]:
    """``1=rabbit:animal;2=tree``, or an object ``{"1": "rabbit:animal"}``."""
    if value is None:
        return {}
    if isinstance(value, str):
        pairs = [part.partition("=")[::2] for part in value.split(";") if part]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        raise InvalidArgument.of("names", f'are {value!r}, must be such as "1=rabbit:animal;2=tree"')
    found = {}
    for number, names in pairs:
        if not (number.isdecimal() and int(number) and isinstance(names, str) and names):
            raise InvalidArgument.of("names", f"{number}={names} is not OBJ=NAME[:CLASS], such as 1=rabbit:animal")
        name, _, class_name = names.partition(":")
        found[int(number)] = RecordedObject(int(number), name, class_name)
    return found
