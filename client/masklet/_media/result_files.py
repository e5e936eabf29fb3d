"""Files of results: JSON, JSON Lines and Parquet.

JSON is one object: {"video": {...}, "source": "clip.mp4", "objects": [...], "frames": [...]}. JSON Lines has the same
in lines; the first one may be left out:

    {"kind": "video", "height": 720, ..., "source": "clip.mp4", "objects": [{"object_id": 1, "name": "", "class": ""}]}
    {"kind": "frame", "frame_index": 0, "pts_seconds": 0.0, "objects": [{"object_id": 1, "rle": {...}, ...}]}

A frame that was corrected stands there again, with a higher "revision" and its corrected objects alone. Lines of other
kinds and unknown keys are skipped, so that what `masklet track --jsonl` tells of a camera, and newer files, can be
read.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast, get_args

import numpy as np

from masklet._media import parquet_files
from masklet._media.atomic_file import replacing
from masklet._protocol.results import FrameResult, ObjectEvent, ObjectResult, VideoInfo
from masklet.errors import InvalidArgument
from masklet.rle import Rle, read_counts

VERSION = 1
SUFFIXES = (".jsonl", ".json", ".parquet")
_EVENTS = (None, *get_args(ObjectEvent))
Batch = tuple["dict[str, Any] | None", Iterator[FrameResult]]


class _Named(Protocol):
    """An object with its names, as a header has it."""

    @property
    def object_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def class_name(self) -> str: ...


def header(video: VideoInfo | None, *, source: str = "", objects: Iterable[_Named] = ()) -> dict[str, Any]:
    """What stands before the frames.

    Args:
        video: What is known of the video.
        source: The video's path; empty if it has none.
        objects: The objects with their names.
    """
    return {
        "masklet": VERSION,
        "video": video and dataclasses.asdict(video),
        "source": source,
        "objects": [{"object_id": o.object_id, "name": o.name, "class": o.class_name} for o in objects],
    }


def frame_to_dict(frame: FrameResult) -> dict[str, Any]:
    """A frame's results, ready for JSON."""
    found: dict[str, Any] = {"frame_index": frame.frame_index, "pts_seconds": frame.pts_seconds}
    if frame.revision:
        found["revision"] = frame.revision
    if frame.undecoded_pts_seconds:
        found["undecoded_pts_seconds"] = list(frame.undecoded_pts_seconds)
    found["objects"] = [_object_to_dict(result) for result in frame.objects.values()]
    return found


def _object_to_dict(result: ObjectResult) -> dict[str, Any]:
    return {
        "object_id": result.object_id,
        "rle": result.rle,
        "box": result.box and list(result.box),
        "area": result.area,
        "predicted_iou": result.predicted_iou,
        "object_score": result.object_score,
        "visible": result.visible,
        "event": result.event,
    }


def write(path: Path, head: Mapping[str, Any], frames: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of results; its suffix says which kind.

    Args:
        path: The file, replaced if it exists.
        head: As `header` makes it.
        frames: As `frame_to_dict` makes them.

    Raises:
        InvalidArgument: The path has another suffix.
        Unavailable: pyarrow is needed and not installed.
        OSError: The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidArgument.of("path", f"{path.name!r} must end in {', '.join(SUFFIXES)}")
    with replacing(path) as partial:
        if suffix == ".parquet":
            parquet_files.write(partial, head, frames)
            return
        with partial.open("w", encoding="utf-8") as file:
            if suffix == ".jsonl":
                for entry in itertools.chain([flat_header(head)], ({"kind": "frame", **frame} for frame in frames)):
                    file.write(json.dumps(entry) + "\n")
                return
            file.write(json.dumps(head)[:-1] + ', "frames": [')
            for number, frame in enumerate(frames):
                file.write((",\n" if number else "") + json.dumps(frame))
            file.write("]}\n")


def flat_header(head: Mapping[str, Any]) -> dict[str, Any]:
    """A header as a line: the video's own keys lie among the others."""
    rest = {name: value for name, value in head.items() if name != "video"}
    return {"kind": "video", **(head["video"] or {}), **rest}


def read(path: Path) -> Iterator[Batch]:
    """Read a file of results: pairs of a header, or None, and frames that are made one at a time.

    Raises:
        InvalidArgument: The file holds something else, or is damaged.
        Unavailable: pyarrow is needed and not installed.
        OSError: The file cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        head, rows = parquet_files.read(path)
        yield head, (_frame(entry, f"{path}: frame {entry['frame_index']}") for entry in rows)
        return
    try:
        with path.open(encoding="utf-8") as file:
            if _is_line(file.readline()):
                file.seek(0)
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield from _line(line, f"{path}: line {number}")
                return
            file.seek(0)
            whole = json.load(file)
    except UnicodeDecodeError:
        raise InvalidArgument.of("path", f"{path} is not text; give a file that `masklet track --json` wrote") from None
    except json.JSONDecodeError as error:
        raise InvalidArgument.of(
            "path", f"{path} is neither JSON nor JSON Lines (line {error.lineno}: {error.msg})"
        ) from None
    except RecursionError:
        raise InvalidArgument.of("path", f"{path} is nested too deeply, so it is not a file of results") from None
    frames = whole.get("frames") if isinstance(whole, dict) else None
    if not isinstance(frames, list):
        raise InvalidArgument.of("path", f"{path} is JSON without a list 'frames', so it is not a file of results")
    yield whole, (_frame(entry, f"{path}: frames[{i}]") for i, entry in enumerate(frames))


def _is_line(first: str) -> bool:
    """Whether the first line is one of JSON Lines: a header or a frame, whole."""
    try:
        entry = json.loads(first)
    except json.JSONDecodeError:
        return False
    return isinstance(entry, dict) and not {"kind", "frame_index"}.isdisjoint(entry)


def _line(line: str, where: str) -> Iterator[Batch]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidArgument.of("path", f"{where} is not JSON ({error.msg}); was the file cut off?") from None
    kind = entry.get("kind", "frame" if "frame_index" in entry else None) if isinstance(entry, dict) else None
    if not isinstance(kind, str):
        raise InvalidArgument.of("path", f"{where} does not say what it is: it has no 'kind'")
    if kind == "frame":
        yield None, iter((_frame(entry, where),))
    elif kind == "video":
        yield {**entry, "video": entry if "height" in entry else None}, iter(())


def _frame(entry: Any, where: str) -> FrameResult:
    try:
        objects = [_object(item) for item in entry["objects"]]
        return FrameResult(
            frame_index=_whole(entry["frame_index"]),
            pts_seconds=_finite(entry["pts_seconds"]),
            sequence=0,
            revision=_whole(entry.get("revision", 0)),
            objects={result.object_id: result for result in sorted(objects, key=lambda result: result.object_id)},
        )
    except KeyError as error:
        raise InvalidArgument.of("path", f"{where} has no key {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError, InvalidArgument) as error:
        raise InvalidArgument.of("path", f"{where} is not a frame's results: {error}") from None


def _object(entry: Any) -> ObjectResult:
    height, width = (_whole(side) for side in entry["rle"]["size"])
    counts = entry["rle"]["counts"]
    if not isinstance(counts, str):
        raise ValueError("the counts of a mask must be COCO's compressed string")
    runs = read_counts(counts.encode("ascii", "replace"), height, width)
    area = int(np.sum(runs[1::2]))
    event = entry.get("event")
    if event not in _EVENTS:
        raise ValueError(f"event is {event!r}, must be one of {_EVENTS}")
    return ObjectResult(
        object_id=_object_id(entry["object_id"]),
        rle=Rle(size=[height, width], counts=counts),
        box=_box(entry["box"], height, width) if area else None,
        area=area,
        predicted_iou=_finite(entry["predicted_iou"]),
        object_score=_finite(entry["object_score"]),
        visible=_flag(entry["visible"]) and area > 0,
        event=event,
    )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number, 0 or above")
    return value


def _object_id(value: Any) -> int:
    if _whole(value) == 0:
        raise ValueError("object_id is 0, must be 1 or above")
    return int(value)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _box(value: Any, height: int, width: int) -> tuple[float, float, float, float]:
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise ValueError(f"box is {value!r}, must be [x0, y0, x1, y1]")
    x0, y0, x1, y1 = map(_finite, value)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"box is {value!r}, must lie in the mask, which is {width}x{height} pixels")
    return x0, y0, x1, y1


def source_of(head: Mapping[str, Any]) -> str:
    """The path of the video in a header; empty where there is none.

    Raises:
        InvalidArgument: It is no text.
    """
    source = head.get("source") or ""
    if not isinstance(source, str):
        raise InvalidArgument.of("path", f"the header's 'source' is {source!r}, must be the path of the video")
    return source


def video_of(head: Mapping[str, Any]) -> VideoInfo | None:
    """The video of a header; None where there is none.

    Raises:
        InvalidArgument: It lacks a key.
    """
    video = head.get("video")
    if video is None:
        return None
    known = {field.name for field in dataclasses.fields(VideoInfo)}
    try:
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in video.items()
        }
        found = VideoInfo(**{name: value for name, value in plain.items() if name in known})
        if _whole(found.height) == 0 or _whole(found.width) == 0:
            raise ValueError("its height or its width is 0")
        _whole(found.frame_count)
        _finite(found.frame_rate)
    except (TypeError, AttributeError, ValueError) as error:
        raise InvalidArgument.of("path", f"the header's 'video' is not a video's description: {error}") from None
    return found


def objects_of(head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a header; empty where there are none.

    Raises:
        InvalidArgument: One of them has no id, or a name that is no text.
    """
    entries = head.get("objects") or []
    if not isinstance(entries, list) or not all(map(_is_named, entries)):
        raise InvalidArgument.of(
            "path", "the header's 'objects' must be a list of {object_id, name, class}: ids above 0, and texts"
        )
    return cast("list[dict[str, Any]]", entries)


def _is_named(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    object_id = entry.get("object_id")
    is_id = isinstance(object_id, int) and not isinstance(object_id, bool) and object_id > 0
    return is_id and all(isinstance(entry.get(key, ""), (str, type(None))) for key in ("name", "class"))
