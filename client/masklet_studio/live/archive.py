"""Where recordings of live sessions go: they become videos of the project."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from masklet.errors import FailedPrecondition
from masklet_studio.live.pictures import Found, LivePrompt
from masklet_studio.live.recorder import FILE_NAME, Recorder, RecordingEnded, RecordingLimits
from masklet_studio.project.history import StudioObject
from masklet_studio.project.project import Project, VideoEntry

logger = logging.getLogger("masklet.studio")


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

    def take_back(self, prompt: LivePrompt) -> None:
        """Take back what a person has said; as `Recorder.take_back`."""
        self._recorder.take_back(prompt)

    def bring_back(self, prompt: LivePrompt) -> None:
        """Say again what was taken back; as `Recorder.bring_back`."""
        self._recorder.bring_back(prompt)

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


class SessionRecording:
    """The recordings of a live session, one after the other: what was found waits here until the disk has taken it.

    Args:
        archive: Where they go.
        tell: Tells all tabs an event.
    """

    def __init__(self, archive: Archive, tell: Callable[[dict[str, Any]], None]) -> None:
        self._archive = archive
        self._tell = tell
        self._recording: Recording | None = None
        self._last: dict[str, Any] = {"on": False}
        self._writing = asyncio.Lock()
        self._waiting: asyncio.Queue[Found] = asyncio.Queue(64)
        self._worker: asyncio.Task[None] | None = None

    def told(self) -> dict[str, Any]:
        """The event that says how the recording goes, or how the last one ended."""
        if self._recording is not None:
            self._last = {"on": True, **self._recording.told()}
        return {"event": "recording", **self._last}

    async def start(self, source: str, rate: float, objects: Sequence[StudioObject]) -> None:
        """Begin to keep what is seen.

        Args:
            source: What is recorded, for people.
            rate: About how many pictures come in a second.
            objects: What is tracked.

        Raises:
            FailedPrecondition: It is kept already.
            OSError: The files cannot be opened.
        """
        if self._recording is not None:
            raise FailedPrecondition("it is being recorded already")
        async with self._writing:
            recording = await asyncio.to_thread(self._archive.begin, source, rate)
            await asyncio.to_thread(recording.describe, objects)
            self._recording = recording
        self._tell(self.told())

    async def stop(self, reason: str = "") -> None:
        """Finish the recording, which is a video of the project then.

        Args:
            reason: Why it ends although nobody asked for it; empty where somebody did.
        """
        await self._written()
        async with self._writing:
            recording, self._recording = self._recording, None
            if recording is None:
                return
            try:
                await asyncio.to_thread(recording.close)
            except OSError as error:
                reason = reason or _cannot_be_written(error)
        video = None if recording.entry is None else self._archive.finished(recording.entry)
        self._last = {"on": False, "video": video, "error": reason or None, **recording.told()}
        self._tell(self.told())

    def keep(self, found: Found) -> None:
        """Have the recording take what was found, if there is one, and the disk is not slower than the camera."""
        if self._recording is not None and not self._waiting.full():
            self._waiting.put_nowait(found)

    async def describe(self, objects: Sequence[StudioObject]) -> None:
        """Take note of what objects are called; as `Recorder.describe`."""
        await self._do(lambda recording: recording.describe(objects))

    async def take_back(self, prompt: LivePrompt) -> None:
        """Take back what a person has said; as `Recorder.take_back`."""
        await self._written()
        await self._do(lambda recording: recording.take_back(prompt))

    async def bring_back(self, prompt: LivePrompt) -> None:
        """Say again what was taken back; as `Recorder.bring_back`."""
        await self._do(lambda recording: recording.bring_back(prompt))

    async def _written(self) -> None:
        """Wait until what was found so far is in the recording."""
        if self._recording is not None and asyncio.current_task() is not self._worker:
            await self._waiting.join()

    async def run(self) -> None:
        """Write what is to be kept, until this is cancelled."""
        self._worker = asyncio.current_task()
        while True:
            found = await self._waiting.get()
            await self._do(lambda recording, found=found: recording.add(found))  # type: ignore[misc]
            self._waiting.task_done()
            if self._recording is not None and found.is_new:
                self._tell(self.told())

    async def _do(self, work: Callable[[Recording], None]) -> None:
        """Have the recording do something, if there is one; where that fails, it ends."""
        try:
            async with self._writing:
                if self._recording is not None:
                    await asyncio.to_thread(work, self._recording)
        except RecordingEnded as error:
            await self.stop(error.message)
        except OSError as error:
            await self.stop(_cannot_be_written(error))
        except Exception as error:
            logger.exception("a recording failed")
            await self.stop(f"the studio failed: {type(error).__name__}: {error}")


def _cannot_be_written(error: OSError) -> str:
    return f"the recording cannot be written: {error.strerror or error}"


def _short(source: str) -> str:
    """The source's name without what file names and people cannot use."""
    address = source.rpartition("://")[2].partition("?")[0]
    return "".join(one if one.isalnum() or one in ".-_:' " else "-" for one in address).strip("-")[:60] or "camera"
