"""Files of results: JSON, JSON Lines and Parquet.

A line of JSON Lines is either a header or a frame. The header comes first, and may be left out:

    {"masklet": 1, "video": {...}, "source": "clip.mp4", "objects": [{"object_id": 1, "name": "", "class": ""}]}
    {"frame_index": 0, "pts_seconds": 0.0, "objects": [{"object_id": 1, "rle": {...}, "box": [...], ...}]}

A frame that was corrected stands there again, with a higher "revision" and its corrected objects alone. JSON has the
header's keys and a list "frames". Unknown keys are skipped, so that newer files can be read.

`masklet track --jsonl` adds a key "kind" to each line: "video" for the header, "frame" for a frame. Its lines of other
kinds are skipped: "end", and what happened to a live source.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
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
_KEYS_OF_LINES = {"masklet", "video", "frame_index"}
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
                for entry in itertools.chain([head], frames):
                    file.write(json.dumps(entry) + "\n")
                return
            file.write(json.dumps(head)[:-1] + ', "frames": [')
            for number, frame in enumerate(frames):
                file.write((",\n" if number else "") + json.dumps(frame))
            file.write("]}\n")


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
                        yield _line(line, f"{path}: line {number}")
                return
            file.seek(0)
            whole = json.load(file)
    except UnicodeDecodeError:
        raise InvalidArgument.of("path", f"{path} is not text; give a file that `masklet track --json` wrote") from None
    except json.JSONDecodeError as error:
        raise InvalidArgument.of(
            "path", f"{path} is neither JSON nor JSON Lines (line {error.lineno}: {error.msg})"
        ) from None
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
    return isinstance(entry, dict) and "frames" not in entry and not _KEYS_OF_LINES.isdisjoint(entry)


def _line(line: str, where: str) -> Batch:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidArgument.of("path", f"{where} is not JSON ({error.msg}); was the file cut off?") from None
    if isinstance(entry, dict) and entry.get("kind", "frame") not in ("frame", "video"):
        return None, iter(())  # what happened beside the results, as `masklet track --jsonl` writes it
    if isinstance(entry, dict) and "frame_index" in entry:
        return None, iter((_frame(entry, where),))
    if isinstance(entry, dict) and not _KEYS_OF_LINES.isdisjoint(entry):
        return entry, iter(())
    raise InvalidArgument.of("path", f"{where} is neither a frame (no 'frame_index') nor a header (no 'video')")


def _frame(entry: Any, where: str) -> FrameResult:
    try:
        objects = [_object(item) for item in entry["objects"]]
        return FrameResult(
            frame_index=_whole(entry["frame_index"]),
            pts_seconds=float(entry["pts_seconds"]),
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
    runs = read_counts(counts.encode("ascii", "replace"), height, width)
    event = entry.get("event")
    if event not in _EVENTS:
        raise ValueError(f"event is {event!r}, must be one of {_EVENTS}")
    box = entry["box"]
    return ObjectResult(
        object_id=_whole(entry["object_id"]),
        rle=Rle(size=[height, width], counts=counts),
        box=None if box is None else cast("tuple[float, float, float, float]", tuple(float(side) for side in box)),
        area=int(np.sum(runs[1::2])),
        predicted_iou=float(entry["predicted_iou"]),
        object_score=float(entry["object_score"]),
        visible=bool(entry["visible"]),
        event=event,
    )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number, 0 or above")
    return value


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
        return VideoInfo(**{name: value for name, value in video.items() if name in known})
    except (TypeError, AttributeError) as error:
        raise InvalidArgument.of("path", f"the header's 'video' is not a video's description: {error}") from None


def objects_of(head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a header; empty where there are none.

    Raises:
        InvalidArgument: One of them has no id.
    """
    entries = head.get("objects") or []
    if not all(isinstance(entry, dict) and isinstance(entry.get("object_id"), int) for entry in entries):
        raise InvalidArgument.of("path", "the header's 'objects' must be a list of {object_id, name, class}")
    return cast("list[dict[str, Any]]", entries)
