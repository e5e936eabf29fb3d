"""YOLO segmentation (https://docs.ultralytics.com/datasets/segment/): a text file for each frame, and data.yaml.

    data.yaml
    images/train/clip_00000.jpg
    labels/train/clip_00000.txt        CLASS X1 Y1 X2 Y2 ...    one line for each object, coordinates from 0 to 1

An object is one polygon. Its parts and its holes are joined by cuts of no width, so a line is an object, as trainers
expect. A frame without objects has an empty file: it is a picture of the background.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from masklet.export.files import FRAME_NAME, text_file, video_name, write_pictures
from masklet.export.formats import Settings
from masklet.export.polygons import joined, rings
from masklet.export.writers.coco import category_ids
from masklet.recording import Recording


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write labels, data.yaml, and the frames if they are asked for."""
    height, width = recording.size
    name = video_name(recording)
    ids = category_ids(recording)
    labels = path / "labels" / "train"
    labels.mkdir(parents=True, exist_ok=True)
    for frame in recording:
        with text_file(labels / f"{name}_{FRAME_NAME.format(frame.frame_index)}.txt") as file:
            for object_id, result in frame.objects.items():
                if result.visible:
                    polygon = _polygon(result.mask, settings.tolerance) / (width, height)
                    file.write(f"{ids[object_id] - 1} " + " ".join(f"{value:.6f}" for value in polygon.ravel()) + "\n")
    (path / "images" / "train").mkdir(parents=True, exist_ok=True)
    write_pictures(
        recording, settings, path / "images" / "train", lambda index: f"{name}_{FRAME_NAME.format(index)}.jpg"
    )
    with text_file(path / "data.yaml") as file:
        file.write("path: . # this folder; set it to an absolute path if the trainer looks elsewhere\n")
        file.write("train: images/train\nval: images/train\nnames:\n")
        for number, class_name in enumerate(recording.class_names):
            file.write(f"  {number}: {json.dumps(class_name)}\n")


def _polygon(mask: npt.NDArray[np.bool_], tolerance: float) -> npt.NDArray[np.float64]:
    return joined(rings(mask, tolerance=tolerance))
