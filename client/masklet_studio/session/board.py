"""What all tabs of a video see: the project's state, masks and the timeline, told to each tab as they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from masklet.errors import MaskletError
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.project.history import GivenPrompt, StudioObject
from masklet_studio.project.lanes import lane
from masklet_studio.project.records import MaskRecord
from masklet_studio.project.video_project import VideoProject
from masklet_studio.session.engine import Mask, Wanted
from masklet_studio.session.tab import Tab

LANES_SECONDS = 0.25
"""The least time between two pictures of a lane."""
SAVE_SECONDS = 1.0
"""The least time between two moments at which everything is made to survive the end of the machine."""
ALL_FRAMES = 2**32 - 1

Event = dict[str, Any]

logger = logging.getLogger("masklet.studio")


@dataclass
class TrackingStatus:
    """What the page shows of a run.

    Attributes:
        running: Whether there is one.
        direction: "forward" or "backward"; of the part that is running.
        frame: The frame that was tracked last.
        to: The last frame of this part.
        frames_per_second: The pace of the last frames.
        error: Why the last run ended early; None where it did not.
    """

    running: bool = False
    direction: str = "forward"
    frame: int = 0
    to: int = 0
    frames_per_second: float = 0.0
    error: dict[str, Any] | None = None

    def told(self) -> dict[str, Any]:
        """As the page has it."""
        return {**vars(self)}


class Board:
    """The state of one video, and the tabs that see it.

    Attributes:
        project: What is kept of the video.
        facts: What is known of the video's frames.
        video: The video, as the page has it.
        tabs: The tabs that are open.
        tracking: What the page shows of a run.
        connected: Whether the server was there when it was needed last.
        loading: Whether the server is still being started.

    Args:
        project: What is kept of the video.
        facts: What is known of the video's frames.
        video: The video, as the page has it.
    """

    def __init__(self, project: VideoProject, facts: VideoFacts, video: dict[str, Any]) -> None:
        self.project = project
        self.facts = facts
        self.video = video
        self.tabs: set[Tab] = set()
        self.tracking = TrackingStatus()
        self.connected = True
        self.loading = False
        self._changed_lanes: set[int] = set()
        self._timers: set[asyncio.Task[None]] = set()
        self._drawing = False
        self._saving = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the video."""
        return self.facts.height, self.facts.width

    @property
    def last_frame(self) -> int:
        """The number of the last frame."""
        return self.facts.frame_count - 1

    # For the server

    def wanted(self) -> Wanted:
        """What the project knows, as far as the server needs it."""
        return Wanted(self.size, self.project.state, self.visible_mask)

    def visible_mask(self, object_id: int, frame: int) -> Mask | None:
        """The stored mask, ``bool[H, W]``; None where there is none, or an empty one."""
        record = self.project.record(object_id, frame)
        return None if record is None or not record.area else record.mask

    # For the tabs

    def state(self) -> Event:
        """Everything that a tab needs to begin."""
        state = self.project.state
        return {
            "event": "state",
            "video": self.video,
            "objects": self._objects(),
            "prompts": self._prompts(),
            "marks": {"in": state.marks.first, "out": state.marks.last},
            "lanes": [self.lane(object_id) for object_id in state.objects],
            "tracking": self.tracking.told(),
            "can_undo": self.project.can_undo,
            "can_redo": self.project.can_redo,
            "connected": self.connected,
            "loading": self.loading,
        }

    def lane(self, object_id: int) -> dict[str, Any]:
        """The timeline's lane of an object."""
        prompts = [prompt for (owner, _), prompt in self.project.state.prompts.items() if owner == object_id]
        return lane(object_id, self.project.masks(object_id), prompts, self.facts.frame_count)

    def tell(self, event: str, **fields: Any) -> None:
        """Send an event to all tabs."""
        for tab in self.tabs:
            tab.event({"event": event, **fields})

    def tell_masks(self, records: Iterable[MaskRecord]) -> None:
        """Send masks to all tabs, and draw the lanes of their objects anew, soon."""
        found = list(records)
        for tab in self.tabs:
            tab.masks(found)
        self.redraw({record.object_id for record in found})

    def tell_changes(self) -> None:
        """Tell all tabs objects, prompts, marks and what can be undone, after an operation."""
        marks = self.project.state.marks
        self.tell("objects", objects=self._objects())
        self.tell("prompts", prompts=self._prompts())
        self.tell("marks", marks={"in": marks.first, "out": marks.last})
        self.tell("history", can_undo=self.project.can_undo, can_redo=self.project.can_redo)
        self.save_soon()

    def tell_invalid(self, object_id: int, first: int, last: int) -> None:
        """Tell all tabs that masks that they hold are void."""
        self.tell("invalid", object=object_id, **{"from": first, "to": last})
        self.redraw({object_id})

    def tell_tracking(self) -> None:
        """Tell all tabs how far the run is."""
        self.tell("tracking", **self.tracking.told())

    def tell_connection(self, error: MaskletError | None) -> None:
        """Tell all tabs whether the server is there, if that has changed."""
        connected = error is None
        if connected != self.connected:
            self.connected = connected
            message = "the server is there" if error is None else error.message
            self.tell("connection", connected=connected, message=message)

    def tell_loading(self, loading: bool) -> None:
        """Tell all tabs whether the server is still being started, if that has changed."""
        if loading != self.loading:
            self.loading = loading
            self.tell("loading", loading=loading)

    def _objects(self) -> list[dict[str, Any]]:
        return [_object_to_dict(one) for one in self.project.state.objects.values()]

    def _prompts(self) -> list[dict[str, Any]]:
        return [_prompt_to_dict(prompt) for prompt in self.project.state.prompts.values()]

    # Later

    def redraw(self, object_ids: set[int]) -> None:
        """Send the lanes of objects anew, soon."""
        self._changed_lanes |= object_ids
        if not self._drawing and self._changed_lanes:
            self._drawing = True
            self._later(self._draw())

    async def _draw(self) -> None:
        await asyncio.sleep(LANES_SECONDS)
        self._drawing = False
        changed = sorted(self._changed_lanes & self.project.state.objects.keys())
        self._changed_lanes.clear()
        if changed and self.tabs:
            self.tell("lanes", lanes=[self.lane(object_id) for object_id in changed])

    def save_soon(self) -> None:
        """Make everything survive the end of the machine, soon; the end of this process it survives already."""
        if not self._saving:
            self._saving = True
            self._later(self._save())

    async def _save(self) -> None:
        await asyncio.sleep(SAVE_SECONDS)
        self._saving = False
        try:
            if await asyncio.to_thread(self.project.sync):
                self.tell("saved")
        except OSError:
            logger.exception("the project could not be written to the disk")
            self.save_soon()

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._timers.add(task)
        task.add_done_callback(self._timers.discard)

    async def close(self) -> None:
        """End what waits, and close the project's files."""
        for task in self._timers:
            task.cancel()
        await asyncio.gather(*self._timers, return_exceptions=True)
        await asyncio.to_thread(self.project.sync)
        self.project.close()


def _object_to_dict(one: StudioObject) -> dict[str, Any]:
    return {"object": one.object_id, "name": one.name, "class": one.class_name, "colour": one.colour}


def _prompt_to_dict(prompt: GivenPrompt) -> dict[str, Any]:
    return {
        "object": prompt.object_id,
        "frame": prompt.frame,
        "points": [list(point) for point in prompt.points],
        "box": prompt.box and list(prompt.box),
        "has_mask": prompt.mask is not None,
    }
