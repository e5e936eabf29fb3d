"""Label Studio (https://labelstud.io/tags/videorectangle): a task, with a VideoRectangle for each object.

It goes with a labeling interface such as this one:

    <View>
      <Labels name="videoLabels" toName="video"><Label value="rabbit"/></Labels>
      <Video name="video" value="$video"/>
      <VideoRectangle name="box" toName="video"/>
    </View>

Frames count from 1; boxes are per cent of the picture. ``enabled`` false: the box ends with this frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from masklet.export.files import text_file, write_list
from masklet.export.formats import Settings
from masklet.recording import Recording


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write a list with one task, as Label Studio imports it."""
    video = settings.video if isinstance(settings.video, str) else recording.source
    scores = [r.predicted_iou for i in recording.objects for _, r in recording.masklet(i) if r.visible]
    with text_file(path) as file:
        file.write('[{"data": {"video": ' + json.dumps(video) + '}, "predictions": [{"model_version": "masklet", ')
        file.write(f'"score": {sum(scores) / max(1, len(scores))}, "result": ')
        write_list(file, (_region(recording, object_id) for object_id in recording.objects))
        file.write("}]}]\n")


def _region(recording: Recording, object_id: int) -> dict[str, Any]:
    found = recording.objects[object_id]
    rate, count = recording.frame_rate, recording.frame_count
    return {
        "id": f"masklet{object_id}",
        "type": "videorectangle",
        "from_name": "box",
        "to_name": "video",
        "origin": "prediction",
        "meta": {"text": [found.label]},
        "value": {
            "framesCount": count,
            "duration": count / rate,
            "sequence": _sequence(recording, object_id),
            "labels": [found.category],
        },
    }


def _sequence(recording: Recording, object_id: int) -> list[dict[str, Any]]:
    """The key frames: every frame on which the object is visible."""
    keys: list[dict[str, Any]] = []
    for frame_index, result in recording.masklet(object_id):
        if keys and (not result.visible or keys[-1]["frame"] != frame_index):  # lost, or frames that were not tracked
            keys[-1]["enabled"] = False
        if result.visible:
            box = result.box or (0.0, 0.0, 0.0, 0.0)
            keys.append(key_frame(frame_index + 1, recording[frame_index].pts_seconds, box, recording.size))
    if keys and keys[-1]["frame"] < recording.frame_count:
        keys[-1]["enabled"] = False
    return keys


def key_frame(number: int, seconds: float, box: tuple[float, ...], size: tuple[int, int]) -> dict[str, Any]:
    """A key frame of a box in a video, as Label Studio writes it: percent of the picture.

    Args:
        number: The frame, counted from 1.
        seconds: Its time in the video.
        box: x0, y0, x1, y1 in pixels.
        size: Height and width of the video in pixels.
    """
    height, width = size
    x0, y0, x1, y1 = box
    return {
        "frame": number,
        "time": seconds,
        "enabled": True,
        "rotation": 0,
        "x": 100 * x0 / width,
        "y": 100 * y0 / height,
        "width": 100 * (x1 - x0) / width,
        "height": 100 * (y1 - y0) / height,
    }
