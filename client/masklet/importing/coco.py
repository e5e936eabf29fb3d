"""Reads COCO instances and YouTube-VIS.

A frame's number is its image's `frame_id` where there is one, else the image's place in the order of ids. An object's
id is its annotations' `track_id` or `instance_id`; an annotation without one is an object of its own. Annotations of
one track on one image are parts of the object.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet import rle
from masklet._protocol.results import ObjectResult, VideoInfo
from masklet.errors import InvalidArgument
from masklet.export.polygons import fill
from masklet.importing.masks import FRAME_RATE, frame_of, result_of, ring_of, size_of
from masklet.recording import Recording


def read(path: Path, video: str | None) -> Recording:
    """Read a file; arguments and errors are those of `masklet.importing.read`."""
    try:
        content = json.loads(path.read_bytes())
        if any("segmentations" in entry for entry in content["annotations"]):
            return _read_videos(content, video)
        return _read_images(content, video)
    except InvalidArgument:
        raise
    except KeyError as error:
        raise InvalidArgument.of("path", f"{path} is not COCO: an entry has no key {error.args[0]!r}") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise InvalidArgument.of("path", f"{path} is not COCO: {error}") from None


def _read_images(content: dict[str, Any], video: str | None) -> Recording:
    videos = content.get("videos") or []
    chosen = _chosen(videos, video) if videos else None
    images = [i for i in content["images"] if chosen is None or i.get("video_id", chosen["id"]) == chosen["id"]]
    images.sort(key=lambda image: (image.get("frame_id", 0), image["id"]))
    if not images:
        raise InvalidArgument.of("path", "has no images, so there are no frames")
    sizes = {image["id"]: size_of(image["height"], image["width"]) for image in images}
    numbers = {image["id"]: int(image.get("frame_id", place)) for place, image in enumerate(images)}
    found = Recording(
        (frame_of(number, {}) for number in numbers.values()), video=_info(sizes, max(numbers.values()) + 1)
    )
    ids = _ObjectIds(content["annotations"])
    for entry in content["annotations"]:
        if entry["image_id"] in numbers:
            object_id, size = ids.of(entry), sizes[entry["image_id"]]
            mask = _mask(entry["segmentation"], size)
            frame_index = numbers[entry["image_id"]]
            if (earlier := found[frame_index].objects.get(object_id)) is not None:
                mask |= earlier.mask  # another part of the same track
            result = result_of(object_id, mask, float(entry.get("score", 1.0)))
            found.add(frame_of(frame_index, {object_id: result}))
            found.name(object_id, class_name=_class_names(content).get(entry["category_id"], ""))
    return found


def _read_videos(content: dict[str, Any], video: str | None) -> Recording:
    chosen = _chosen(content["videos"], video)
    size = size_of(chosen["height"], chosen["width"])
    count = int(chosen.get("length") or len(chosen["file_names"]))
    found = Recording((frame_of(index, {}) for index in range(count)), video=_info({0: size}, count))
    ids = _ObjectIds(content["annotations"])
    for entry in content["annotations"]:
        if entry["video_id"] == chosen["id"]:
            object_id = ids.of(entry)
            for frame_index, segmentation in enumerate(entry["segmentations"]):
                if segmentation is not None:
                    result = _result(object_id, segmentation, size, float(entry.get("score", 1.0)))
                    found.add(frame_of(frame_index, {object_id: result}))
            found.name(object_id, class_name=_class_names(content).get(entry["category_id"], ""))
    return found


def _chosen(videos: list[dict[str, Any]], name: str | None) -> dict[str, Any]:
    names = [
        str(entry.get("name") or Path(str((entry.get("file_names") or [entry["id"]])[0])).parent) for entry in videos
    ]
    if name is not None and name in names:
        return videos[names.index(name)]
    if name is not None or len(videos) != 1:
        raise InvalidArgument.of("video", f"is {name!r}, must name one of the videos in the file: {', '.join(names)}")
    return videos[0]


class _ObjectIds:
    """The ids of objects: those that tracks have, and free numbers for annotations without a track."""

    def __init__(self, annotations: list[dict[str, Any]]) -> None:
        tracks = {track for entry in annotations if (track := self._track(entry)) is not None}
        # Ids of objects begin at 1; those of tracks may begin at 0.
        self._shift = 1 if 0 in tracks else 0
        self._next = max(tracks, default=0) + self._shift + 1

    def of(self, entry: dict[str, Any]) -> int:
        track = self._track(entry)
        if track is not None:
            return track + self._shift
        self._next += 1
        return self._next - 1

    @staticmethod
    def _track(entry: dict[str, Any]) -> int | None:
        if "segmentations" in entry:
            return int(entry["id"])
        attributes = entry.get("attributes") or {}
        for value in (entry.get("track_id"), entry.get("instance_id"), attributes.get("track_id")):
            if value is not None:
                return int(value)
        return None


def _class_names(content: dict[str, Any]) -> dict[int, str]:
    return {entry["id"]: str(entry["name"]) for entry in content.get("categories") or []}


def _info(sizes: dict[int, tuple[int, int]], count: int) -> VideoInfo:
    if len(set(sizes.values())) > 1:
        raise InvalidArgument.of("path", "has images of different sizes, so they are not the frames of one video")
    height, width = next(iter(sizes.values()))
    return VideoInfo(height, width, FRAME_RATE, count / FRAME_RATE, count, "pictures", "pictures", 0)


def _result(object_id: int, segmentation: Any, size: tuple[int, int], score: float) -> ObjectResult:
    return result_of(object_id, _mask(segmentation, size), score)


def _mask(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask that COCO's polygons or run-lengths (compressed or not) describe."""
    if isinstance(segmentation, list):
        polygons = [ring_of(polygon) for polygon in segmentation]
        mask = np.zeros(size, np.bool_)
        for polygon in polygons:
            mask |= fill([polygon], size)  # COCO's polygons are parts: a pixel of any of them belongs to the object
        return mask
    if tuple(segmentation["size"]) != size:
        raise ValueError(f"a mask has the size {segmentation['size']}, its image {list(size)}")
    counts = segmentation["counts"]
    if isinstance(counts, str):
        return rle.decode(rle.Rle(size=list(size), counts=counts))
    runs = np.asarray(counts, np.int64)
    if runs.min(initial=0) < 0 or runs.sum() != size[0] * size[1]:
        raise ValueError(f"the runs of a mask make {runs.sum()} pixels, its image has {size[0] * size[1]}")
    return rle.paint_runs(runs, *size)
