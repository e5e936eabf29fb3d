"""Results as `supervision.Detections` (https://supervision.roboflow.com), for its annotators, zones and trackers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from masklet._protocol.results import FrameResult
from masklet.integrations import library
from masklet.recording import Recording

if TYPE_CHECKING:
    import supervision


def detections(frame: FrameResult, *, names: Recording | None = None) -> supervision.Detections:
    """The visible objects of a frame.

    Args:
        frame: The results.
        names: Knows the objects' names and classes; None: the class of every object is "object".

    Returns:
        Detections with boxes, masks (compact, if this version of supervision has them), predicted IoU as `confidence`,
        object ids as `tracker_id`, and ``class_name`` and ``event`` among the data.

    Raises:
        Unavailable: supervision is not installed.
    """
    sv = library("supervision", "supervision", "supervision")
    seen = [result for result in frame.objects.values() if result.visible and result.box is not None]
    if not seen:
        return sv.Detections.empty()
    boxes = np.array([result.box for result in seen], np.float32)
    class_names = names.class_names if names is not None else ["object"]
    of_objects = [names.objects[result.object_id].category if names is not None else "object" for result in seen]
    return sv.Detections(
        xyxy=boxes,
        mask=_masks(sv, np.stack([result.mask for result in seen]), boxes),
        confidence=np.array([result.predicted_iou for result in seen], np.float32),
        class_id=np.array([class_names.index(name) for name in of_objects]),
        tracker_id=np.array([result.object_id for result in seen]),
        data={"class_name": np.array(of_objects), "event": np.array([result.event or "" for result in seen])},
    )


def every_frame(recording: Recording) -> Iterator[tuple[int, supervision.Detections]]:
    """The number and the detections of each frame of a recording, made one at a time."""
    for frame in recording:
        yield frame.frame_index, detections(frame, names=recording)


def _masks(sv: Any, masks: Any, boxes: Any) -> Any:
    compact = getattr(sv, "CompactMask", None)
    if compact is None:
        return masks
    inclusive = boxes - np.array([0, 0, 1, 1], np.float32)  # its boxes hold their last row and column
    return compact.from_dense(masks, inclusive, image_shape=masks.shape[1:])
