"""From Label Studio's video boxes to prompts, and from results to its video boxes.

Label Studio counts frames from 1, by the rate that its ``<Video>`` tag has, which need not be the video's own. So
frames go by time wherever a region says how many frames the video has there, and how long it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masklet import FrameResult, Prompt
from masklet.errors import InvalidArgument
from masklet.export.writers.label_studio import key_frame

_KIND = "videorectangle"


@dataclass(frozen=True)
class Region:
    """One object of a task: a video box that a person drew.

    Attributes:
        raw: The region as Label Studio sent it.
        keys: Its key frames, in order.
        rate: Frames of Label Studio per second; 0 if the region does not say.
    """

    raw: Mapping[str, Any]
    keys: Sequence[Mapping[str, Any]]
    rate: float

    @property
    def prompted(self) -> list[Mapping[str, Any]]:
        """The key frames that show the object: those that a person drew, not those that end it."""
        return [key for key in self.keys if key.get("enabled", True) or key is self.keys[0]]

    def time_of(self, frame: int) -> float | None:
        """The time of a frame of Label Studio in seconds; None: frames go by their number."""
        return (frame - 1) / self.rate if self.rate else None

    def frame_of(self, result: FrameResult) -> int:
        """The frame of Label Studio that a result belongs to."""
        return 1 + (math.floor(result.pts_seconds * self.rate + 0.5) if self.rate else result.frame_index)


def regions_in(result: object) -> list[Region]:
    """The video boxes among the regions of an annotation.

    Raises:
        InvalidArgument: A video box is malformed.
    """
    if not isinstance(result, list):
        raise InvalidArgument.of("result", "must be a list of regions")
    boxes = [raw for raw in result if isinstance(raw, dict) and raw.get("type") == _KIND]
    return [_region(raw, f"result[{number}].value") for number, raw in enumerate(boxes)]


def _region(raw: dict[str, Any], where: str) -> Region:
    value = raw.get("value")
    keys = value.get("sequence") if isinstance(value, dict) else None
    if not isinstance(keys, list) or not keys or not all(map(_is_key, keys)):
        raise InvalidArgument.of(where, "must have a sequence of boxes, each with frame, x, y, width and height")
    assert isinstance(value, dict)
    count, duration = value.get("framesCount") or 0, value.get("duration") or 0
    if not _is_number(count) or not _is_number(duration) or count < 0 or duration < 0:
        raise InvalidArgument.of(where, "must have numbers above 0 as framesCount and duration")
    rate = count / duration if count and duration else 0.0
    return Region(raw, sorted(keys, key=lambda key: key["frame"]), rate)


def _is_key(key: object) -> bool:
    return (
        isinstance(key, dict)
        and all(_is_number(key.get(name)) for name in ("x", "y", "width", "height"))
        and isinstance(key.get("frame"), int)
        and key["frame"] >= 1
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def prompts_of(region: Region, object_id: int, size: tuple[int, int]) -> Iterator[Prompt]:
    """A box for each frame on which a person drew the object.

    Args:
        region: The object.
        object_id: Its number in the call.
        size: Height and width of the video.
    """
    height, width = size
    for key in region.prompted:
        x0, y0 = max(0.0, key["x"]) * width / 100, max(0.0, key["y"]) * height / 100
        x1 = min(100.0, key["x"] + key["width"]) * width / 100
        y1 = min(100.0, key["y"] + key["height"]) * height / 100
        if x1 <= x0 or y1 <= y0:
            raise InvalidArgument.of("result", f"has a box without area on frame {key['frame']}; draw it again")
        time = region.time_of(key["frame"])
        place: dict[str, Any] = {"frame_index": key["frame"] - 1} if time is None else {"pts_seconds": time}
        yield Prompt(object_id=object_id, box=(x0, y0, x1, y1), **place)


class Track:
    """The boxes of one object, as results come.

    Args:
        region: The object as a person drew it.
        object_id: Its number in the call.
    """

    def __init__(self, region: Region, object_id: int) -> None:
        self._region = region
        self._id = object_id
        self._drawn = {key["frame"]: key for key in region.prompted}
        self._keys: dict[int, dict[str, Any]] = {}
        self._last: int | None = None  # the last frame on which it was visible
        self._scores: list[float] = []

    def add(self, frame: FrameResult, size: tuple[int, int]) -> None:
        """Take the results of one frame."""
        result = frame.objects.get(self._id)
        if result is None:
            return
        number = self._region.frame_of(frame)
        if number in self._drawn:  # what a person drew stays as it is
            self._keys[number] = {"rotation": 0, "time": frame.pts_seconds, **self._drawn[number], "enabled": True}
            self._last = number
        elif result.visible and result.box is not None:
            key = key_frame(number, frame.pts_seconds, result.box, size)
            # Where Label Studio shows fewer frames a second than the video has, the nearest one counts.
            if number not in self._keys or self._distance(key) < self._distance(self._keys[number]):
                self._keys[number] = key
            self._last = number
            self._scores.append(result.predicted_iou)
        elif self._last is not None:
            self._keys[self._last]["enabled"] = False  # from here on it is not to be seen
            self._last = None

    def _distance(self, key: Mapping[str, Any]) -> float:
        """How far the time of a box is from the time of its frame in Label Studio, in seconds."""
        time = self._region.time_of(key["frame"])
        return 0.0 if time is None else abs(float(key["time"]) - time)

    @property
    def score(self) -> float:
        """The mean of the model's own estimate, 0 to 1; 0 where nothing was tracked."""
        return sum(self._scores) / max(1, len(self._scores))

    def region(self, *, last_frame: int) -> dict[str, Any]:
        """The region with the boxes of all frames.

        Args:
            last_frame: The last frame of Label Studio that was tracked; the object ends there, unless the video does.
        """
        value = dict(self._region.raw["value"])
        for number, drawn in self._drawn.items():  # where Label Studio shows more frames a second than the video has
            if number <= last_frame:
                self._keys.setdefault(number, {"rotation": 0, **drawn, "enabled": True})
        keys = [self._keys[number] for number in sorted(self._keys)]
        earlier = [key for key in self._region.keys if not keys or key["frame"] < keys[0]["frame"]]
        if keys and self._last is not None and last_frame < (value.get("framesCount") or 0):
            keys[-1]["enabled"] = False
        return {**self._region.raw, "origin": "prediction", "value": {**value, "sequence": [*earlier, *keys]}}
