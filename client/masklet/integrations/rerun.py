"""Results in Rerun's viewer (https://rerun.io): the video, masks, boxes, scores and events on one time line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from masklet._protocol.results import FrameResult
from masklet.drawing import colour_of
from masklet.errors import InvalidArgument, Unavailable
from masklet.integrations import library
from masklet.recording import Recording

if TYPE_CHECKING:
    import rerun

TIMELINE = "video"
FRAMES = "frame"
VIEWER = "view"
"""What stands for a viewer on this machine, in place of a file's path."""
ADDRESSES = ("rerun+http://", "rerun+https://", "rerun://")
"""How the address of a running viewer begins."""
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
    logger = FrameLogger(recording, stream, path=path, video=video)
    for frame in recording:
        logger.add(frame)


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
    with opened(file) as stream:
        log(recording, stream, video=video)


@contextlib.contextmanager
def opened(target: str | os.PathLike[str]) -> Iterator[rerun.RecordingStream]:
    """A stream to a viewer or into a file, while the block runs; at its end everything has arrived there.

    Args:
        target: "view": a viewer, which is started if none runs on this machine. An address such as
            "rerun+http://127.0.0.1:9876/proxy": the viewer there. Else the path of a file.

    Raises:
        Unavailable: rerun-sdk is not installed, or the viewer cannot be started.
        OSError: The file cannot be written.
    """
    rr = library("rerun", "rerun-sdk", "rerun")
    stream = rr.RecordingStream("masklet")
    if os.fspath(target) == VIEWER:
        try:
            stream.spawn()
        except RuntimeError as error:  # what the library raises where its viewer is missing or does not start
            raise Unavailable(f"Rerun's viewer cannot be started: {error}; write a file.rrd instead") from error
    elif os.fspath(target).startswith(ADDRESSES):
        stream.connect_grpc(os.fspath(target))
    else:
        Path(target).open("wb").close()  # the library says of a file that it cannot write no more than "failed"
        stream.save(os.fspath(target))
    try:
        yield stream
    finally:
        stream.flush()
        stream.disconnect()


class FrameLogger:
    """Logs results one by one, as they come.

    Args:
        recording: Names of objects, and the video. Its results are not read.
        stream: As for `log`.
        path: As for `log`.
        video: As for `log`.

    Raises:
        InvalidArgument: An object's id is above 65535.
        Unavailable: rerun-sdk is not installed.
        OSError: The video cannot be read.
    """

    def __init__(
        self,
        recording: Recording,
        stream: rerun.RecordingStream | None = None,
        *,
        path: str = "masklet",
        video: bool = True,
    ) -> None:
        self._rr = library("rerun", "rerun-sdk", "rerun")
        self._recording, self._stream, self._path = recording, stream, path
        self._labels = {i: found.label for i, found in recording.objects.items()}
        self._size: tuple[int, int] | None = None
        self._check(self._labels)
        self._log_labels()
        self._asset = ""
        if video and Path(recording.source).suffix.lower() in _VIDEOS:
            self._asset = f"{path}/video"
            self._log(self._asset, self._rr.AssetVideo(path=recording.source), static=True)

    def add(self, frame: FrameResult) -> None:
        """Log one result. A correction replaces what was logged of its frame.

        Raises:
            InvalidArgument: An object's id is above 65535.
        """
        rr = self._rr
        if new := frame.objects.keys() - self._labels.keys():
            self._check(new)
            self._labels.update({i: f"object {i}" for i in sorted(new)})
            self._log_labels()
        rr.set_time(TIMELINE, duration=frame.pts_seconds, recording=self._stream)
        rr.set_time(FRAMES, sequence=frame.frame_index, recording=self._stream)
        if self._asset:
            self._log(self._asset, rr.VideoFrameReference(seconds=frame.pts_seconds, video_reference=self._asset))
        for result in frame.objects.values():
            height, width = result.rle["size"]
            self._size = (height, width)
        if self._size is not None:
            self._log_shapes(frame, self._size)
        for object_id, result in frame.objects.items():
            self._log(f"{self._path}/scores/{object_id}", rr.Scalars(result.predicted_iou))
            if result.event is not None:
                told = f"{self._labels[object_id]}: {result.event.replace('_', ' ')}"
                self._log(f"{self._path}/events", rr.TextLog(told))

    def _log_shapes(self, frame: FrameResult, size: tuple[int, int]) -> None:
        rr = self._rr
        seen = [result for result in frame.objects.values() if result.visible and result.box is not None]
        ids = np.zeros(size, np.uint16)
        for result in seen:
            ids[result.mask] = result.object_id
        self._log(f"{self._path}/video/masks", rr.SegmentationImage(ids))
        boxes = rr.Boxes2D(
            array=np.array([result.box for result in seen], np.float32).reshape(-1, 4),
            array_format=rr.Box2DFormat.XYXY,
            class_ids=[result.object_id for result in seen],
            labels=[self._labels[result.object_id] for result in seen],
        )
        self._log(f"{self._path}/video/boxes", boxes)

    def _log_labels(self) -> None:
        classes = [(i, label, colour_of(i)) for i, label in self._labels.items()]
        self._log(self._path, self._rr.AnnotationContext(classes), static=True)

    def _log(self, entity: str, what: Any, *, static: bool = False) -> None:
        self._rr.log(entity, what, static=static, recording=self._stream)

    @staticmethod
    def _check(ids: Iterable[int]) -> None:
        if (most := max(ids, default=0)) > _MAX_ID:
            raise InvalidArgument.of("recording", f"object {most} is above {_MAX_ID}, Rerun's last class")
