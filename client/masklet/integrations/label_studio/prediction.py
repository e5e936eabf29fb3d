"""Predictions for Label Studio's tasks: the video boxes of a task, tracked through its video."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import masklet
from masklet import Client, Prompt
from masklet.errors import InvalidArgument
from masklet.integrations.label_studio.regions import Region, Track, prompts_of, regions_in
from masklet.integrations.label_studio.videos import Videos


@dataclass(frozen=True)
class Labels:
    """What a labeling interface says of video boxes.

    Attributes:
        from_name: The name of its ``VideoRectangle`` tag.
        to_name: The name of its ``Video`` tag.
        field: The field of a task's data that holds the video's address.
    """

    from_name: str
    to_name: str
    field: str

    @classmethod
    def of(cls, text: str) -> Labels:
        """Read a labeling interface.

        Raises:
            InvalidArgument: It is not XML, or has no video with boxes.
        """
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise InvalidArgument.of("label_config", "declares entities, which no labeling interface needs")
        try:
            root = ElementTree.fromstring(text)  # noqa: S314 - it declares no entities
        except ElementTree.ParseError as error:
            raise InvalidArgument.of("label_config", f"is not XML: {error}") from None
        videos = {tag.get("name"): tag for tag in root.iter("Video")}
        for boxes in root.iter("VideoRectangle"):
            video = videos.get(boxes.get("toName"))
            if video is not None and (value := video.get("value", "")).startswith("$"):
                return cls(boxes.get("name", ""), boxes.get("toName", ""), value[1:])
        raise InvalidArgument.of(
            "label_config", 'needs <Video name="video" value="$video"/> and <VideoRectangle name="box" toName="video"/>'
        )


class Predictor:
    """Tracks the boxes of tasks.

    Args:
        client: The connection to a masklet server. Any number of threads may use it.
        videos: Where the tasks' videos are.
        model: A model's name; empty: the server's default.
        max_frames: Frames that are tracked after an object's last box; 0: up to the end of the video.
    """

    def __init__(self, client: Client, videos: Videos, *, model: str = "", max_frames: int = 0) -> None:
        self._client, self._videos, self._model, self._max_frames = client, videos, model, max_frames

    @property
    def version(self) -> str:
        """What Label Studio shows as the version of the model."""
        return f"masklet {masklet.__version__}" + (f" {self._model}" if self._model else "")

    def check_labels(self, text: str) -> None:
        """Refuse a labeling interface without boxes on a video; an empty text says nothing."""
        if text:
            Labels.of(text)

    def predict(self, task: Mapping[str, Any], label_config: str, context: object) -> dict[str, Any]:
        """The boxes of a task's objects on every frame from their first box on.

        Args:
            task: As Label Studio sends it.
            label_config: The project's labeling interface.
            context: What a person has drawn so far, if the prediction is asked for while they draw; else the boxes of
                the task's last draft or annotation are tracked.

        Returns:
            ``result``, ``score`` and ``model_version``. The result is empty where there is no box.

        Raises:
            InvalidArgument: The task, its boxes or the labeling interface are wrong.
            MaskletError: The video cannot be had, or the server reports an error.
        """
        labels = Labels.of(label_config)
        regions = [one for one in _drawn(task, context) if one.raw.get("from_name") == labels.from_name]
        answer = {"result": [], "score": 0.0, "model_version": self.version}
        if not regions:
            return answer
        address = (task.get("data") or {}).get(labels.field)
        if not isinstance(address, str) or not address:
            raise InvalidArgument.of(f"data.{labels.field}", "must be the address of a video")
        with self._videos.opened(address) as path:
            tracks, last = self._track(path, regions)
        scores = [track.score for track in tracks]
        return {
            **answer,
            "result": [track.region(last_frame=last) for track in tracks],
            "score": sum(scores) / len(scores),
        }

    def _track(self, path: Path, regions: list[Region]) -> tuple[list[Track], int]:
        size = _size(path)
        prompts: list[Prompt] = []
        tracks = [Track(region, number) for number, region in enumerate(regions, start=1)]
        for number, region in enumerate(regions, start=1):
            prompts += prompts_of(region, number, size)
        ends = max(key["frame"] for region in regions for key in region.prompted) + self._max_frames
        last = 0
        with contextlib.closing(self._client.track(path, prompts, model=self._model)) as tracking:
            for frame in tracking:
                last = regions[0].frame_of(frame)
                if self._max_frames and last > ends:
                    break
                for track in tracks:
                    track.add(frame, size)
        return tracks, min(last, ends) if self._max_frames else last


def _drawn(task: Mapping[str, Any], context: object) -> list[Region]:
    if isinstance(context, dict) and context.get("result"):
        return regions_in(context["result"])
    for field in ("drafts", "annotations", "predictions"):
        entries = task.get(field)
        for entry in reversed(entries if isinstance(entries, list) else []):
            if isinstance(entry, dict) and (found := regions_in(entry.get("result") or [])):
                return found
    return []


def _size(path: Path) -> tuple[int, int]:
    """Height and width of a video as shown."""
    from masklet._media.frames import shown_frames

    for picture in shown_frames(path):
        return picture.shape[0], picture.shape[1]
    raise InvalidArgument.of("video", f"{path.name} has no frame")
