"""A camera or stream that is tracked while it runs, from the first tab that looks at it to the last."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from masklet.errors import FailedPrecondition, MaskletError, Unavailable
from masklet_studio.live.archive import Archive, Recording
from masklet_studio.live.camera import Camera, OnState, PageCamera
from masklet_studio.live.pictures import Picture
from masklet_studio.live.recorder import RecordingEnded
from masklet_studio.live.tab import LiveTab
from masklet_studio.live.tracker import Found, LiveTracker
from masklet_studio.project.history import StudioObject
from masklet_studio.project.records import PROMPTED, MaskRecord, record_of
from masklet_studio.server_link import ServerLink

GRACE_SECONDS = 10.0
"""How long a camera is kept that nobody looks at, so that a page can be loaded again."""
STATUS_SECONDS = 0.5
"""The time between two looks at how it goes."""
UNTRACKED_PICTURES_A_SECOND = 15
"""Pictures that are shown without masks while there is no server."""
_PACE_SECONDS = 3.0

logger = logging.getLogger("masklet.studio")


class LiveSession:
    """A camera or stream, what is tracked in it, and the tabs that look at it.

    Attributes:
        live_id: Its name in addresses.
        camera: Where the pictures come from.
        objects: What is tracked, by id.
        tracker: Tracks it.
        tabs: The tabs that look at it.
        is_over: Whether it has ended, and why is known.

    Args:
        live_id: Its name in addresses.
        camera: Makes the camera; it is given a function that takes what the camera does.
        server: The server, and the model; empty: the server's default.
        archive: Where recordings go.
    """

    def __init__(
        self, live_id: str, camera: Callable[[OnState], Camera], server: tuple[ServerLink, str], archive: Archive
    ) -> None:
        self.live_id = live_id
        self.camera = camera(self._camera_is)
        self.objects: dict[int, StudioObject] = {}
        self.tabs: set[LiveTab] = set()
        self.is_over = False
        self._archive = archive
        self._recording: Recording | None = None
        self._recorded: dict[str, Any] = {"on": False}
        self._state, self._message = "connecting", f"Connecting to {self.camera.name}…"
        self._server_error: MaskletError | None = Unavailable("the model is being loaded")
        self._shown: tuple[Picture, dict[int, MaskRecord]] | None = None
        self._lately: deque[Picture] = deque(maxlen=8)
        self._revision = 0
        self._last_object = 0
        self._pictures = 0
        self._paces: deque[float] = deque(maxlen=200)
        self._writing = asyncio.Lock()
        self._to_record: asyncio.Queue[Found] = asyncio.Queue(64)
        self._alone_since = time.monotonic()
        self.tracker = LiveTracker(*server, self)
        self._tasks = [asyncio.create_task(work) for work in (self._film(), self._tell_status(), self._record())]

    # For the page

    def told(self) -> dict[str, Any]:
        """As the page has it."""
        width, height = (self._shown[0].width, self._shown[0].height) if self._shown else (0, 0)
        return {
            "id": self.live_id, "name": self.camera.name, "live": True, "width": width, "height": height,
            "from_page": isinstance(self.camera, PageCamera), "frames": None, "fps": None, "duration": None,
            "ready": True, "error": None,
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Everything that a tab needs to begin."""
        return {
            "event": "state", "video": self.told(), "objects": self._objects(), "prompts": [], "lanes": [],
            "can_undo": False, "can_redo": False, "connected": True, "status": self.status(None),
            "recording": self._recording_told(),
        }  # fmt: skip

    def status(self, tab: LiveTab | None) -> dict[str, Any]:
        """How it goes, for a tab."""
        error = self._server_error
        return {
            "event": "status", "state": self._state, "message": self._message,
            "server": error is None, "server_message": "" if error is None else error.message,
            "latency": tab.latency_milliseconds if tab is not None else None,
            "frames_per_second": round(self._pace, 1),
        }  # fmt: skip

    @property
    def _pace(self) -> float:
        """Pictures in a second, of the last seconds."""
        since = time.monotonic() - _PACE_SECONDS
        return sum(at > since for at in self._paces) / _PACE_SECONDS

    def join(self, tab: LiveTab) -> None:
        """Show the session to a tab."""
        tab.event(self.state())
        if self._shown is not None:
            tab.show(self._shown[0], list(self._shown[1].values()))
        self.tabs.add(tab)

    def leave(self, tab: LiveTab) -> None:
        """Take note that a tab is gone."""
        self.tabs.discard(tab)
        self._alone_since = time.monotonic()

    def tell(self, event: str, **fields: Any) -> None:
        """Send an event to all tabs."""
        for tab in self.tabs:
            tab.event({"event": event, **fields})

    @property
    def is_left(self) -> bool:
        """Whether nobody has looked at it for so long that the camera should be free again."""
        return not self.tabs and time.monotonic() - self._alone_since > GRACE_SECONDS

    def _objects(self) -> list[dict[str, Any]]:
        return [
            {"object": one.object_id, "name": one.name, "class": one.class_name, "colour": one.colour}
            for one in self.objects.values()
        ]

    # What happens

    def picture(self, number: int) -> Picture | None:
        """The picture of a number, if it was shown lately."""
        return next((one for one in self._lately if one.number == number), None)

    def next_object(self) -> int:
        """An id that no object of this session has had."""
        self._last_object += 1
        return self._last_object

    async def describe(self, one: StudioObject) -> None:
        """Add an object, or change what it is called."""
        self.objects[one.object_id] = one
        self.tell("objects", objects=self._objects())
        await self._recorded_by(lambda recording: recording.describe([one]))

    def forget(self, object_id: int) -> None:
        """Track an object no longer. What a recording has of it stays there."""
        del self.objects[object_id]
        self.tracker.remove(object_id)
        if self._shown is not None:
            self._shown[1].pop(object_id, None)
        self.tell("objects", objects=self._objects())

    def found(self, found: Found) -> None:
        """Take what the server found on a picture: as `Listener.found`."""
        self._revision += 1
        prompted = {prompt.object_id for prompt in found.prompts}
        number = found.picture.number
        records = {
            one: record_of(result, number, self._revision, PROMPTED if one in prompted else 0)
            for one, result in found.objects.items()
            if one in self.objects
        }
        if found.is_new:
            self._paces.append(time.monotonic())
            self._show(found.picture, records)
        else:
            if self._shown is not None and self._shown[0].number == number:
                self._shown[1].update(records)
            for tab in self.tabs:
                tab.change(number, list(records.values()))
        self._keep(found)

    def _keep(self, found: Found) -> None:
        """Have the recording take it, if there is one, and the disk is not slower than the camera."""
        if self._recording is not None and not self._to_record.full():
            self._to_record.put_nowait(found)

    def _show(self, picture: Picture, records: dict[int, MaskRecord]) -> None:
        known = self._shown[0] if self._shown else None
        self._shown = (picture, records)
        self._lately.append(picture)
        if known is None or (known.width, known.height) != (picture.width, picture.height):
            self.tell("video", video=self.told())
        for tab in self.tabs:
            tab.show(picture, list(records.values()))

    def server_is(self, error: MaskletError | None, lost: Sequence[int]) -> None:
        """Take note of the server: as `Listener.server_is`."""
        self._server_error = error
        names = ", ".join(self.objects[one].name or f"object {one}" for one in lost if one in self.objects)
        if names:
            self.tell("say", message=f"The server was away, and {names} was out of sight; click it again.")
        self._tell_now()

    def _camera_is(self, state: str, message: str) -> None:
        if not self.is_over:
            self._state, self._message = state, message
            self._tell_now()

    def _tell_now(self) -> None:
        for tab in self.tabs:
            tab.event(self.status(tab))

    async def _tell_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            self._tell_now()

    async def _film(self) -> None:
        try:
            while True:
                await self.tracker.room()
                picture = await self.camera.picture()
                if picture is None:
                    await self._end("The stream has ended.")
                    return
                if self._state != "running":
                    self._camera_is("running", "")
                picture = replace(picture, number=self._pictures)
                self._pictures += 1
                if not await self.tracker.send(picture):
                    self._paces.append(time.monotonic())
                    self._show(picture, {})
                    self._keep(Found(picture, {}, is_new=True))
                    await asyncio.sleep(1 / UNTRACKED_PICTURES_A_SECOND)
        except MaskletError as error:
            await self._end(error.message)
        except Exception as error:
            logger.exception("a live session failed")
            await self._end(f"the studio failed: {type(error).__name__}: {error}")

    async def _end(self, message: str) -> None:
        """The camera gives nothing more: say so, free it, and finish the recording."""
        self._state, self._message, self.is_over = "ended", _sentence(message), True
        await self.camera.close()
        await self.tracker.close()
        await self.stop_recording()
        self._tell_now()

    # Recording

    def _recording_told(self) -> dict[str, Any]:
        if self._recording is not None:
            self._recorded = {"on": True, **self._recording.told()}
        return {"event": "recording", **self._recorded}

    async def start_recording(self) -> None:
        """Begin to keep what is seen.

        Raises:
            FailedPrecondition: It is kept already, or the stream has ended.
            OSError: The files cannot be opened.
        """
        if self._recording is not None:
            raise FailedPrecondition("it is being recorded already")
        if self.is_over:
            raise FailedPrecondition("the stream has ended, so there is nothing to record")
        async with self._writing:
            recording = await asyncio.to_thread(self._archive.begin, self.camera.name, self._pace)
            await asyncio.to_thread(recording.describe, list(self.objects.values()))
            self._recording = recording
        self.tell(**self._recording_told())

    async def stop_recording(self, reason: str = "") -> None:
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
        self._recorded = {"on": False, "video": video, "error": reason or None, **recording.told()}
        self.tell(**self._recording_told())

    async def _written(self) -> None:
        """Wait until what was found so far is in the recording."""
        if self._recording is not None and asyncio.current_task() is not self._tasks[2]:
            await self._to_record.join()

    async def _record(self) -> None:
        while True:
            found = await self._to_record.get()
            await self._recorded_by(lambda recording, found=found: recording.add(found))  # type: ignore[misc]
            self._to_record.task_done()
            if self._recording is not None and found.is_new:
                self.tell(**self._recording_told())

    async def _recorded_by(self, work: Callable[[Recording], None]) -> None:
        """Have the recording do something, if there is one; where that fails, it ends."""
        try:
            async with self._writing:
                if self._recording is not None:
                    await asyncio.to_thread(work, self._recording)
        except RecordingEnded as error:
            await self.stop_recording(error.message)
        except OSError as error:
            await self.stop_recording(_cannot_be_written(error))
        except Exception as error:
            logger.exception("a recording failed")
            await self.stop_recording(f"the studio failed: {type(error).__name__}: {error}")

    async def close(self) -> None:
        """End it: free the camera, finish the recording. May be called twice."""
        if not self.is_over:
            self._tasks[0].cancel()
            await asyncio.gather(self._tasks[0], return_exceptions=True)
            await self._end("The live session was ended.")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _sentence(message: str) -> str:
    """The message with a capital letter, unless it begins with an address."""
    return message if "://" in message.partition(" ")[0] else message[:1].upper() + message[1:]


def _cannot_be_written(error: OSError) -> str:
    return f"the recording cannot be written: {error.strerror or error}"
