"""One tab of a browser: what waits to be sent to it, within a bound."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

from masklet_studio.project.records import MaskRecord

MAX_WAITING_BYTES = 8 * 1024**2
"""Bytes of masks that wait for a tab that reads slowly; further ones are dropped, and the tab is told to ask again."""
MAX_WAITING_EVENTS = 2000
"""Events that wait for a tab; one that has more is cut off, and begins anew with the state."""
_NEWEST_ONLY = frozenset({"tracking", "history", "prompts", "objects", "marks", "connection", "loading", "saved"})
_IN_STATE = (_NEWEST_ONLY | {"state", "lanes"}) - {"saved"}


class Socket(Protocol):
    """What a tab is reached by."""

    def send_text(self, data: str) -> Awaitable[None]:
        """Send text; waits while the other side does not read."""
        ...

    def send_bytes(self, data: bytes) -> Awaitable[None]:
        """Send bytes; waits while the other side does not read."""
        ...


class Tab:
    """What waits for one tab. A tab that reads slowly holds up neither tracking nor the other tabs.

    Attributes:
        overrun: True once more events wait than the tab will ever read.

    Args:
        socket: Where it goes.
    """

    def __init__(self, socket: Socket) -> None:
        self.overrun = False
        self._gone = False
        self._socket = socket
        self._waiting: deque[dict[str, Any] | bytes] = deque()
        self._bytes = 0
        self._missed: dict[int, tuple[int, int]] = {}
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def event(self, event: dict[str, Any]) -> None:
        """Send an event. One that replaces those of its kind takes the place of one that waits."""
        if self.overrun:
            return  # the tab will begin anew
        if event["event"] == "state":
            # It says all that these say, and says it newer. Left where they are, they would be read after it.
            self._waiting = deque(
                one for one in self._waiting if isinstance(one, bytes) or one["event"] not in _IN_STATE
            )
        if event["event"] in _NEWEST_ONLY:
            for index, waiting in enumerate(self._waiting):
                if isinstance(waiting, dict) and waiting["event"] == event["event"]:
                    self._waiting[index] = event
                    return
        if event["event"] == "lanes":
            for index, waiting in enumerate(self._waiting):
                if isinstance(waiting, dict) and waiting["event"] == "lanes":
                    newer = {lane["object"]: lane for lane in (*waiting["lanes"], *event["lanes"])}
                    self._waiting[index] = {"event": "lanes", "lanes": list(newer.values())}
                    return
        if len(self._waiting) >= MAX_WAITING_EVENTS:
            self.overrun = True
        self._waiting.append(event)
        self._changed.set()

    def masks(self, records: Iterable[MaskRecord]) -> None:
        """Send masks; those for which there is no room are named in an "invalid" event later."""
        if self.overrun:
            return
        room = []
        for record in records:
            data = record.pack()
            if self._bytes + len(data) > MAX_WAITING_BYTES:
                first, last = self._missed.get(record.object_id, (record.frame, record.frame))
                self._missed[record.object_id] = (min(first, record.frame), max(last, record.frame))
            else:
                room.append(data)
                self._bytes += len(data)
        if room:
            self._push(b"".join(room))

    async def stored(self, data: bytes) -> None:
        """Send masks that the tab has asked for; waits until there is room, or the tab is gone."""
        # The room may be taken by another answer between the moment it is there and the moment this one goes on.
        while not self._has_room.is_set() and not self._gone:
            await self._has_room.wait()
        if self._gone:
            return
        self._bytes += len(data)
        self._push(data)

    def _push(self, data: bytes) -> None:
        self._waiting.append(data)
        if self._bytes > MAX_WAITING_BYTES // 2:
            self._has_room.clear()
        self._changed.set()

    def close(self) -> None:
        """Have nobody wait for the tab any more: it is gone, and what is sent to it is dropped."""
        self._gone = self.overrun = True
        self._waiting.clear()
        self._has_room.set()

    async def write(self) -> None:
        """Send what waits, for ever; ends by an exception, when the tab is gone."""
        while not self.overrun:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                item = self._waiting.popleft()
                if isinstance(item, bytes):
                    await self._socket.send_bytes(item)
                    self._bytes -= len(item)
                    if self._bytes <= MAX_WAITING_BYTES // 2:
                        self._has_room.set()
                else:
                    await self._socket.send_text(json.dumps(item, separators=(",", ":")))
                if not self._waiting:
                    self._tell_missed()

    def _tell_missed(self) -> None:
        missed, self._missed = self._missed, {}
        for object_id, (first, last) in missed.items():
            self._waiting.append({"event": "invalid", "object": object_id, "from": first, "to": last})
