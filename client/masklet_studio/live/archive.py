"""Where recordings of live sessions go: they become videos of the project."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from masklet_studio.live.recorder import FILE_NAME, Recorder, RecordingLimits
from masklet_studio.live.tracker import Found
from masklet_studio.project.history import StudioObject
from masklet_studio.project.project import Project, VideoEntry


class Archive:
    """Begins recordings in a project.

    Args:
        project: The project.
        max_bytes: The most that one recording may take.
        finished: Called with a recording that is whole; returns the video as the page has it.
    """

    def __init__(self, project: Project, max_bytes: int, finished: Callable[[VideoEntry], dict[str, Any]]) -> None:
        self._project = project
        self._max_bytes = max_bytes
        self._finished = finished

    def begin(self, source: str, rate: float) -> Recording:
        """Begin a recording.

        Args:
            source: What is recorded, for people.
            rate: About how many pictures come in a second.

        Raises:
            OSError: Its files cannot be opened.
        """
        return Recording(self._project, source, RecordingLimits(rate, self._max_bytes))

    def finished(self, entry: VideoEntry) -> dict[str, Any]:
        """Have the studio use a recording that is whole; returns the video as the page has it."""
        return self._finished(entry)


class Recording:
    """A recording that is running. With its first frame it becomes a video of the project.

    Args:
        project: The project.
        source: What is recorded, for people.
        limits: What is known of it beforehand.

    Raises:
        OSError: Its files cannot be opened.
    """

    def __init__(self, project: Project, source: str, limits: RecordingLimits) -> None:
        self._project = project
        self._name = f"{time.strftime('%Y-%m-%d %H.%M.%S')} {_short(source)}.mkv"
        self._video_id, folder = project.make_room()
        self._entry: VideoEntry | None = None
        self._recorder = Recorder(folder, source, limits)

    def describe(self, objects: Sequence[StudioObject]) -> None:
        """Take note of objects; as `Recorder.describe`."""
        for one in objects:
            self._recorder.describe(one)

    def add(self, found: Found) -> None:
        """Take what was found on a picture; as `Recorder.add`."""
        self._recorder.add(found)
        if self._entry is None and self._recorder.frames:
            self._entry = self._project.record(self._video_id, self._name, FILE_NAME)

    def told(self) -> dict[str, Any]:
        """How far it is, as the page has it."""
        recorder = self._recorder
        return {"frames": recorder.frames, "bytes": recorder.bytes, "seconds": round(recorder.seconds, 1)}

    def close(self) -> VideoEntry | None:
        """End it; the video of the project that it became, None where it has no frame.

        Raises:
            OSError: It cannot be written to its end; what it has is a video nevertheless.
        """
        self._recorder.close()
        return self._entry

    @property
    def entry(self) -> VideoEntry | None:
        """The video of the project that it became; None as long as it has no frame."""
        return self._entry


def _short(source: str) -> str:
    """The source's name without what file names and people cannot use."""
    address = source.rpartition("://")[2].partition("?")[0]
    return "".join(one if one.isalnum() or one in ".-_:' " else "-" for one in address).strip("-")[:60] or "camera"
