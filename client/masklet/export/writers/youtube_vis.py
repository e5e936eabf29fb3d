"""YouTube-VIS (https://youtube-vos.org/dataset/vis/): one annotation for each object, with a list of masks.

The lists `segmentations`, `bboxes` and `areas` go over the frames in `file_names`, the recording's frames in
order. They have null where the object is not visible.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from masklet import rle
from masklet._protocol.results import ObjectResult
from masklet.export.files import FRAME_NAME, corner_and_size, video_name, write_json
from masklet.export.formats import Settings
from masklet.export.writers.coco import categories, category_ids
from masklet.recording import Recording


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write a file of YouTube-VIS; it knows no options."""
    del settings
    height, width = recording.size
    name = video_name(recording)
    indices = recording.frame_indices
    video = {
        "id": 1,
        "width": width,
        "height": height,
        "length": len(indices),
        "file_names": [f"{name}/{FRAME_NAME.format(index)}.jpg" for index in indices],
    }
    write_json(
        path,
        {
            "info": {"description": f"{name}, tracked by masklet", "version": "1.0"},
            "licenses": [],
            "categories": categories(recording),
            "videos": [video],
            "annotations": _annotations(recording, indices),
        },
    )


def _runs(result: ObjectResult) -> dict[str, Any]:
    """The mask as YouTube-VIS's own annotations have it: run-lengths as numbers, not as COCO's string."""
    height, width = result.rle["size"]
    runs = rle.read_counts(result.rle["counts"].encode(), height, width)
    return {"size": [height, width], "counts": runs.tolist()}


def _annotations(recording: Recording, indices: list[int]) -> Iterator[dict[str, Any]]:
    height, width = recording.size
    ids = category_ids(recording)
    place = {frame_index: number for number, frame_index in enumerate(indices)}
    for object_id in recording.objects:
        segmentations: list[Any] = [None] * len(indices)
        boxes: list[Any] = [None] * len(indices)
        areas: list[Any] = [None] * len(indices)
        for frame_index, result in recording.masklet(object_id):
            if result.visible and result.box is not None:
                at = place[frame_index]
                segmentations[at], boxes[at], areas[at] = _runs(result), corner_and_size(result.box), result.area
        yield {
            "id": object_id,
            "video_id": 1,
            "category_id": ids[object_id],
            "segmentations": segmentations,
            "bboxes": boxes,
            "areas": areas,
            "iscrowd": 0,
            "height": height,
            "width": width,
            "length": len(indices),
        }
