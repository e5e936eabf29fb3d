"""One tab that looks at a live session: it gets the newest picture as soon as it has drawn the one before."""

from __future__ import annotations

import asyncio
import json
import statistics
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from masklet_studio.live.pictures import Picture
from masklet_studio.project.records import MaskRecord
from masklet_studio.session.tab import Socket

VERSION = 2
HEAD = struct.Struct("<BBHIII")
"""Version, flags, 0, number of the picture, width << 16 | height, length of the JPEG file."""
MAX_UNDRAWN = 2
"""Pictures that a tab has got and has not drawn: one is drawn while the next one is on its way."""
MAX_EVENTS = 500
"""Events that wait for a tab; one that has more is cut off."""
LATENCY_SECONDS = 3.0
"""Over how long the shown latency is the median."""
_NEWEST_ONLY = frozenset({"status", "objects", "history", "recording", "more"})


class LiveTab:
    """What waits for one tab: events in order, and of the pictures the newest one.

    Attributes:
        overrun: True once more events wait than the tab will ever read.

    Args:
        socket: Where it goes.
    """

    def __init__(self, socket: Socket) -> None:
        self.overrun = False
        self._socket = socket
        self._events: deque[dict[str, Any]] = deque()
        self._picture: tuple[Picture, Sequence[MaskRecord]] | None = None
        self._masks: dict[int, MaskRecord] = {}
        self._undrawn: dict[int, int] = {}  # when they were taken, by number
        self._sent = -1
        self._latencies: deque[tuple[float, float]] = deque(maxlen=400)
        self._changed = asyncio.Event()

    def event(self, event: dict[str, Any]) -> None:
        """Send an event; of some kinds only the newest one."""
        if event["event"] in _NEWEST_ONLY:
            for index, waiting in enumerate(self._events):
                if waiting["event"] == event["event"]:
                    self._events[index] = event
                    return
        if len(self._events) >= MAX_EVENTS:
            self.overrun = True
        self._events.append(event)
        self._changed.set()

    def show(self, picture: Picture, masks: Sequence[MaskRecord]) -> None:
        """Send a picture with its masks, in place of one that still waits."""
        self._picture = (picture, masks)
        self._changed.set()

    def change(self, number: int, masks: Sequence[MaskRecord]) -> None:
        """Send masks that have changed on a picture, if the tab shows that one."""
        if self._picture is not None and self._picture[0].number == number:
            known = {one.object_id: one for one in self._picture[1]}
            known.update({one.object_id: one for one in masks})
            self._picture = (self._picture[0], list(known.values()))
        elif number == self._sent:
            self._masks.update({one.object_id: one for one in masks})
            self._changed.set()

    def drawn(self, number: int) -> None:
        """Take note that the tab has drawn a picture."""
        taken = self._undrawn.pop(number, None)
        for older in [one for one in self._undrawn if one < number]:
            del self._undrawn[older]
        if taken is not None:
            self._latencies.append((time.monotonic(), (time.time_ns() - taken) / 1e6))
        self._changed.set()

    @property
    def latency_milliseconds(self) -> int | None:
        """The median time from a picture's capture to the moment it was drawn; None where none was drawn lately."""
        since = time.monotonic() - LATENCY_SECONDS
        lately = [latency for at, latency in self._latencies if at > since]
        return round(statistics.median(lately)) if lately else None

    def close(self) -> None:
        """Send nothing more: the tab is gone."""
        self.overrun = True
        self._changed.set()

    async def write(self) -> None:
        """Send what waits, until the tab is gone."""
        while not self.overrun:
            await self._changed.wait()
            self._changed.clear()
            while self._events and not self.overrun:
                await self._socket.send_text(json.dumps(self._events.popleft(), separators=(",", ":")))
            if self._masks:
                masks, self._masks = self._masks, {}
                await self._socket.send_bytes(b"".join(one.pack() for one in masks.values()))
            if self._picture is not None and len(self._undrawn) < MAX_UNDRAWN:
                (picture, shown), self._picture = self._picture, None
                self._undrawn[picture.number] = picture.taken_nanoseconds
                self._sent = picture.number
                await self._socket.send_bytes(_pack(picture, shown))
            if self._events or self._masks:
                self._changed.set()


def _pack(picture: Picture, masks: Sequence[MaskRecord]) -> bytes:
    """A picture and its masks as one message."""
    size = picture.width << 16 | picture.height
    head = HEAD.pack(VERSION, 0, 0, picture.number, size, len(picture.jpeg))
    return head + picture.jpeg + b"".join(one.pack() for one in masks)
