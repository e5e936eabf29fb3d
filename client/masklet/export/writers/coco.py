"""COCO instances (https://cocodataset.org/#format-data): an image for each frame, an annotation for each object on it.

`track_id` ties an object's annotations together; CVAT and Datumaro look for it among the `attributes`. `videos`,
`video_id` and `frame_id` (from 0) are those of COCO-VID, as MMTracking has them. Ids of images and annotations begin at
1. Masks are compressed run-lengths, with ``iscrowd`` 0, as pycocotools allows, because they are single objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from masklet._protocol.results import ObjectResult
from masklet.export.files import corner_and_size, file_name, video_name, write_json, write_pictures
from masklet.export.formats import Settings
from masklet.export.polygons import outer_rings
from masklet.recording import Recording


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write a COCO file, and the frames into the folder ``images`` beside it if they are asked for."""
    write_json(
        path,
        {
            "info": {"description": f"{video_name(recording)}, tracked by masklet", "version": "1.0"},
            "licenses": [],
            "categories": categories(recording),
            "videos": [{"id": 1, "name": video_name(recording)}],
            "images": _images(recording),
            "annotations": _annotations(recording, settings),
        },
    )
    write_pictures(recording, settings, path.parent / "images", file_name)


def categories(recording: Recording) -> list[dict[str, Any]]:
    """The classes of the objects, with ids from 1."""
    return [
        {"id": number, "name": name, "supercategory": ""} for number, name in enumerate(recording.class_names, start=1)
    ]


def category_ids(recording: Recording) -> dict[int, int]:
    """The id of each object's class, by the object's id."""
    numbers = {entry["name"]: entry["id"] for entry in categories(recording)}
    return {object_id: numbers[found.category] for object_id, found in recording.objects.items()}


def _images(recording: Recording) -> Iterator[dict[str, Any]]:
    height, width = recording.size
    for frame_index in recording.frame_indices:
        yield {
            "id": frame_index + 1,
            "file_name": file_name(frame_index),
            "height": height,
            "width": width,
            "video_id": 1,
            "frame_id": frame_index,
        }


def _annotations(recording: Recording, settings: Settings) -> Iterator[dict[str, Any]]:
    number, ids = 0, category_ids(recording)
    for frame in recording:
        for object_id, result in frame.objects.items():
            if result.visible and result.box is not None:
                number += 1
                yield {
                    "id": number,
                    "image_id": frame.frame_index + 1,
                    "video_id": 1,
                    "category_id": ids[object_id],
                    "track_id": object_id,
                    "segmentation": _segmentation(result, settings),
                    "area": result.area,
                    "bbox": corner_and_size(result.box),
                    "iscrowd": 0,
                    "score": result.predicted_iou,
                    "attributes": {"track_id": object_id},
                }


def _segmentation(result: ObjectResult, settings: Settings) -> Any:
    if settings.shape != "polygon":
        return result.rle
    return [ring.ravel().round(2).tolist() for ring in outer_rings(result.mask, tolerance=settings.tolerance)]
