"""Results in Rerun's viewer (https://rerun.io): the video, masks, boxes, scores and events on one time line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from masklet._protocol.results import FrameResult
from masklet.drawing import colour_of
from masklet.errors import InvalidArgument
from masklet.integrations import library
from masklet.recording import Recording

if TYPE_CHECKING:
    import rerun

TIMELINE = "video"
FRAMES = "frame"
_MAX_ID = 65535
_VIDEOS = (".mp4", ".m4v", ".mov")  # what the viewer plays


def log(
    recording: Recording, stream: rerun.RecordingStream | None = None, *, path: str = "masklet", video: bool = True
) -> None:
    """Log a recording.

    Args:
        recording: The results.
        stream: Where to; None: the stream that ``rerun.init`` has made.
        path: The entity under which everything lies.
        video: True: log the video itself, too, if the recording's `source` is one that the viewer plays (MP4).

    Raises:
        InvalidArgument: An object's id is above 65535.
        Unavailable: rerun-sdk is not installed.
        OSError: The video cannot be read.
    """
    rr = library("rerun", "rerun-sdk", "rerun")
    if max(recording.objects, default=0) > _MAX_ID:
        raise InvalidArgument.of("recording", f"object {max(recording.objects)} is above {_MAX_ID}, Rerun's last class")
    classes = [(i, found.label, colour_of(i)) for i, found in recording.objects.items()]
    rr.log(path, rr.AnnotationContext(classes), static=True, recording=stream)
    asset = None
    if video and Path(recording.source).suffix.lower() in _VIDEOS:
        asset = f"{path}/video"
        rr.log(asset, rr.AssetVideo(path=recording.source), static=True, recording=stream)
    for frame in recording:
        rr.set_time(TIMELINE, duration=frame.pts_seconds, recording=stream)
        rr.set_time(FRAMES, sequence=frame.frame_index, recording=stream)
        if asset is not None:
            rr.log(asset, rr.VideoFrameReference(seconds=frame.pts_seconds, video_reference=asset), recording=stream)
        _log_frame(rr, recording, frame, path, stream)


def save(recording: Recording, file: str | os.PathLike[str], *, video: bool = True) -> None:
    """Write a recording into a file that the viewer opens (``rerun FILE.rrd``).

    Args:
        recording: The results.
        file: The file, overwritten if it exists.
        video: As for `log`.

    Raises:
        Unavailable: rerun-sdk is not installed.
        OSError: A file cannot be read or written.
    """
    rr = library("rerun", "rerun-sdk", "rerun")
    stream = rr.RecordingStream("masklet")
    stream.save(os.fspath(file))
    log(recording, stream, video=video)
    stream.flush()
    stream.disconnect()


def _log_frame(rr: Any, recording: Recording, frame: FrameResult, path: str, stream: Any) -> None:
    seen = [result for result in frame.objects.values() if result.visible and result.box is not None]
    ids = np.zeros(recording.size, np.uint16)
    for result in seen:
        ids[result.mask] = result.object_id
    rr.log(f"{path}/video/masks", rr.SegmentationImage(ids), recording=stream)
    boxes = rr.Boxes2D(
        array=np.array([result.box for result in seen], np.float32).reshape(-1, 4),
        array_format=rr.Box2DFormat.XYXY,
        class_ids=[result.object_id for result in seen],
        labels=[recording.objects[result.object_id].label for result in seen],
    )
    rr.log(f"{path}/video/boxes", boxes, recording=stream)
    for object_id, result in frame.objects.items():
        rr.log(f"{path}/scores/{object_id}", rr.Scalars(result.predicted_iou), recording=stream)
        if result.event is not None:
            told = f"{recording.objects[object_id].label}: {result.event.replace('_', ' ')}"
            rr.log(f"{path}/events", rr.TextLog(told), recording=stream)
