"""The masks of a project as a file of results, written frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from masklet import FrameResult, ObjectResult, VideoInfo
from masklet._media import result_files
from masklet._protocol.results import ObjectEvent
from masklet.recording import RecordedObject
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.project.lanes import events
from masklet_studio.project.mask_log import Stored
from masklet_studio.project.records import MaskRecord
from masklet_studio.project.video_project import VideoProject


class ResultWriter:
    """What is exported, as it was when the export was asked for.

    Args:
        project: What is kept of the video.
        facts: What is known of its frames.
        video: The video's file, or its folder of pictures.
        objects: The objects to write.
    """

    def __init__(self, project: VideoProject, facts: VideoFacts, video: Path, objects: tuple[int, ...]) -> None:
        self._project = project
        self._facts = facts
        self._video = video
        named = project.state.objects
        self._objects = [RecordedObject(one, named[one].name, named[one].class_name) for one in objects]
        self._masks = {one: project.masks(one) for one in objects}

    def write(self, path: Path) -> int:
        """Write the file of results (JSON Lines); may run on another thread.

        Returns:
            The number of frames.
        """
        info = VideoInfo(
            self._facts.height, self._facts.width, self._facts.frame_rate, self._facts.duration,
            self._facts.frame_count, "", "", 0,
        )  # fmt: skip
        header = result_files.header(info, source=str(self._video), objects=self._objects)
        result_files.write(path, header, (result_files.frame_to_dict(frame) for frame in self._frames()))
        return len(self._numbers())

    def _numbers(self) -> list[int]:
        return sorted({frame for masks in self._masks.values() for frame in masks})

    def _frames(self) -> Iterator[FrameResult]:
        told = {one: dict(events(masks)) for one, masks in self._masks.items()}
        for frame in self._numbers():
            objects = {
                one: self._result(masks[frame], told[one].get(frame))
                for one, masks in self._masks.items()
                if frame in masks
            }
            yield FrameResult(frame, self._facts.times[frame], sequence=0, revision=0, objects=objects)

    def _result(self, stored: Stored, event: str | None) -> ObjectResult:
        record = MaskRecord.unpack(self._project.bytes_of(stored))
        happened: ObjectEvent | None = None
        if event is not None:
            happened = "lost" if event == "lost" else "reacquired"
        return ObjectResult(
            record.object_id, record.rle, record.box, record.area, record.iou, record.score,
            record.visible and record.area > 0, event=happened,
        )  # fmt: skip
