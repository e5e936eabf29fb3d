"""A camera or stream that is tracked while it runs, from the first tab that looks at it to the last."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from masklet.errors import FailedPrecondition, MaskletError, Unavailable
from masklet_studio.live.archive import Archive, SessionRecording
from masklet_studio.live.camera import Camera, OnState, PageCamera
from masklet_studio.live.history import Change, Held, LiveHistory, Start
from masklet_studio.live.pictures import Found, LivePrompt, Picture
from masklet_studio.live.tab import LiveTab
from masklet_studio.live.tracker import LiveTracker
from masklet_studio.project.history import StudioObject
from masklet_studio.project.records import PROMPTED, MaskRecord, record_of
from masklet_studio.server_link import ServerLink

LATELY = 16
"""Pictures that are remembered with their masks, so that a click finds the one that was seen."""
GRACE_SECONDS = 10.0
"""How long a camera is kept that nobody looks at, so that a page can be loaded again."""
STATUS_SECONDS = 0.5
"""The time between two looks at how it goes."""
UNTRACKED_PICTURES_A_SECOND = 15
"""Pictures that are shown without masks while there is no server."""
_PACE_SECONDS = 3.0

logger = logging.getLogger("masklet.studio")


@dataclass(frozen=True)
class _Shown:
    """A picture that was shown, and the masks on it."""

    picture: Picture
    masks: dict[int, MaskRecord]


class LiveSession:
    """A camera or stream, what is tracked in it, and the tabs that look at it.

    Attributes:
        live_id: Its name in addresses.
        camera: Where the pictures come from.
        objects: What is tracked, by id.
        tracker: Tracks it.
        tabs: The tabs that look at it.
        recording: Keeps what is seen, if it is asked to.
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
        self.recording = SessionRecording(archive, lambda event: self.tell(**event))
        self._state, self._message = "connecting", f"Connecting to {self.camera.name}…"
        self._server_error: MaskletError | None = Unavailable("the model is being loaded")
        self._lately: deque[_Shown] = deque(maxlen=LATELY)
        self._history = LiveHistory()
        self._undoing = asyncio.Lock()
        self._revision = 0
        self._last_object = 0
        self._pictures = 0
        self._paces: deque[float] = deque(maxlen=200)
        self._alone_since = time.monotonic()
        self.tracker = LiveTracker(*server, self)
        self._tasks = [asyncio.create_task(work) for work in (self._film(), self._tell_status(), self.recording.run())]

    # For the page

    def told(self) -> dict[str, Any]:
        """As the page has it."""
        shown = self._shown
        width, height = (shown.picture.width, shown.picture.height) if shown else (0, 0)
        return {
            "id": self.live_id, "name": self.camera.name, "live": True, "width": width, "height": height,
            "from_page": isinstance(self.camera, PageCamera), "frames": None, "fps": None, "duration": None,
            "ready": True, "error": None,
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Everything that a tab needs to begin."""
        return {
            "event": "state", "video": self.told(), "objects": self._objects(), "prompts": [], "lanes": [],
            **self._history_told(), "connected": True, "status": self.status(None),
            "recording": self.recording.told(),
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
            tab.show(self._shown.picture, list(self._shown.masks.values()))
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

    @property
    def _shown(self) -> _Shown | None:
        """What is seen now."""
        return self._lately[-1] if self._lately else None

    def _seen(self, number: int) -> _Shown | None:
        """What was seen as the picture of a number, if that was lately."""
        return next((one for one in self._lately if one.picture.number == number), None)

    def _start(self, object_id: int, shown: _Shown | None) -> Start | None:
        """How tracking of an object could begin anew from what is shown; None where it has no mask there."""
        mask = None if shown is None else shown.masks.get(object_id)
        if shown is None or mask is None or not mask.area:
            return None
        return Start(shown.picture, LivePrompt(object_id, shown.picture.number, mask=mask.rle))

    def next_object(self) -> int:
        """An id that no object of this session has had."""
        self._last_object += 1
        return self._last_object

    async def describe(self, one: StudioObject) -> None:
        """Add an object, or change what it is called."""
        known = self.objects.get(one.object_id)
        verb = "add_object" if known is None else "change_object"
        await self._describe(one)
        self._did(Change(verb, one.object_id, Held(known), Held(one)))

    async def _describe(self, one: StudioObject) -> None:
        self.objects[one.object_id] = one
        self.tell("objects", objects=self._objects())
        await self.recording.describe([one])

    def forget(self, object_id: int) -> None:
        """Track an object no longer. What a recording has of it stays there."""
        before = Held(self.objects[object_id], self._start(object_id, self._shown))
        self._forget(object_id)
        self._did(Change("remove_object", object_id, before, Held(None)))

    def _forget(self, object_id: int) -> None:
        del self.objects[object_id]
        self._lose(object_id)
        self.tell("objects", objects=self._objects())

    def _lose(self, object_id: int) -> None:
        """Track an object no longer, and show no mask of it."""
        self.tracker.remove(object_id)
        if self._shown is not None:
            self._shown.masks.pop(object_id, None)

    async def prompt(self, prompt: LivePrompt) -> bool:
        """Say what an object is; whether the server has taken it, as `LiveTracker.prompt` says.

        Raises:
            MaskletError: It cannot be done.
        """
        seen = self._seen(prompt.number)
        before = self._start(prompt.object_id, seen or self._shown)
        picture = None if seen is None else seen.picture
        taken = await self.tracker.prompt(prompt, picture)
        one = self.objects.get(prompt.object_id)
        where = seen or self._shown
        if one is not None and where is not None:
            after = Start(where.picture, prompt)
            self._did(Change("prompt", prompt.object_id, Held(one, before), Held(one, after), prompt))
        return taken

    # Undo

    def _history_told(self) -> dict[str, Any]:
        undoable, redoable = self._history.undoable, self._history.redoable
        return {"can_undo": undoable is not None, "can_redo": redoable is not None}

    def _did(self, change: Change) -> None:
        self._history.add(change)
        self.tell("history", **self._history_told())

    async def undo(self) -> str:
        """Undo the last change; what it was. Pictures that were seen stay as they were.

        Raises:
            FailedPrecondition: There is none.
            MaskletError: It cannot be done.
        """
        async with self._undoing:
            change = self._history.undoable
            if change is None:
                raise FailedPrecondition("there is nothing to undo")
            await self._become(change.object_id, change.after, change.before)
            if change.prompt is not None:
                await self.recording.take_back(change.prompt)
            self._history.undid()
            self.tell("history", **self._history_told())
            return change.verb

    async def redo(self) -> str:
        """Do the change again that was undone last; what it was.

        Raises:
            FailedPrecondition: There is none.
            MaskletError: It cannot be done.
        """
        async with self._undoing:
            change = self._history.redoable
            if change is None:
                raise FailedPrecondition("there is nothing to do again")
            await self._become(change.object_id, change.before, change.after)
            if change.prompt is not None:
                await self.recording.bring_back(change.prompt)
            self._history.redid()
            self.tell("history", **self._history_told())
            return change.verb

    async def _become(self, object_id: int, now: Held, then: Held) -> None:
        """Make an object what it was at another moment."""
        if then.described is None:
            if object_id in self.objects:
                self._forget(object_id)
            return
        if self.objects.get(object_id) != then.described:
            await self._describe(then.described)
        if then.start is now.start:
            return
        if then.start is None:
            self._lose(object_id)
        else:
            await self.tracker.begin_again(then.start.prompt, then.start.picture)

    # What comes

    def found(self, found: Found) -> None:
        """Take what the server found on a picture: as `Listener.found`."""
        self._revision += 1
        self._history.learn(found)
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
            seen = self._seen(number)
            if seen is not None:
                seen.masks.update(records)
            for tab in self.tabs:
                tab.change(number, list(records.values()))
        self.recording.keep(found)

    def _show(self, picture: Picture, records: dict[int, MaskRecord]) -> None:
        known = self._shown.picture if self._shown else None
        self._lately.append(_Shown(picture, records))
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
                    self.recording.keep(Found(picture, {}, is_new=True))
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
        await self.recording.stop()
        self._tell_now()

    async def record(self) -> None:
        """Begin to keep what is seen.

        Raises:
            FailedPrecondition: It is kept already, or the stream has ended.
            OSError: The files cannot be opened.
        """
        if self.is_over:
            raise FailedPrecondition("the stream has ended, so there is nothing to record")
        await self.recording.start(self.camera.name, self._pace, list(self.objects.values()))

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
