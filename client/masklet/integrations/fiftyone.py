"""Results as labels of frames in FiftyOne (https://docs.voxel51.com), with masks and indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from masklet._protocol.results import FrameResult
from masklet.integrations import library
from masklet.recording import Recording

if TYPE_CHECKING:
    import fiftyone


def add(sample: fiftyone.Sample, recording: Recording, *, field: str = "masklet") -> None:
    """Add a recording to a sample of a video: a field of `Detections` on each frame. FiftyOne counts frames from 1.

    Args:
        sample: The video's sample. Call its `save` where it belongs to a data set.
        recording: The results of this video.
        field: The name of the field.

    Raises:
        Unavailable: FiftyOne is not installed.
    """
    fo = library("fiftyone", "fiftyone", "fiftyone")
    for frame in recording:
        number = frame.frame_index + 1
        labels = detections(recording, frame)
        if number in sample.frames:
            sample.frames[number][field] = labels
        else:
            sample.frames[number] = fo.Frame(**{field: labels})


def detections(recording: Recording, frame: FrameResult) -> fiftyone.Detections:
    """The visible objects of a frame: label, box, mask, predicted IoU as `confidence`, object id as `index`.

    Args:
        recording: Knows the objects' names and classes.
        frame: One of its frames.

    Raises:
        Unavailable: FiftyOne is not installed.
    """
    fo = library("fiftyone", "fiftyone", "fiftyone")
    found: list[Any] = []
    height, width = recording.size
    for object_id, result in frame.objects.items():
        if not result.visible or result.box is None:
            continue
        x0, y0, x1, y1 = (int(side) for side in result.box)
        found.append(
            fo.Detection(
                label=recording.objects[object_id].category,
                bounding_box=[x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
                mask=result.mask[y0:y1, x0:x1],
                confidence=result.predicted_iou,
                index=object_id,
                tags=[result.event] if result.event else [],
            )
        )
    return fo.Detections(detections=found)
