"""One tab of the studio's page, as a test hears it: events and bytes come in, verbs go out."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed

ANSWER_SECONDS = 60.0
Event = dict[str, Any]


class Tab:
    """What a tab has heard. A thread reads all the time, so that the studio never waits for the test.

    Attributes:
        events: All events so far.
        state: The first event, which says everything.
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self._heard: queue.Queue[str | bytes | None] = queue.Queue()
        self.events: list[Event] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.state = self.wait("state")

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in self._socket:
                self._heard.put(message)
        self._heard.put(None)

    def take_event(self, event: Event) -> None:
        """Take in an event that is in `events` already."""

    def take_bytes(self, message: bytes) -> None:
        """Take in a binary message."""

    def hear(self, seconds: float = ANSWER_SECONDS) -> Event | None:
        """Take in the next message; returns it if it is an event."""
        message = self._heard.get(timeout=seconds)
        if message is None:
            raise ConnectionError("the studio has closed the tab")
        if isinstance(message, bytes):
            self.take_bytes(message)
            return None
        event: Event = json.loads(message)
        self.events.append(event)
        self.take_event(event)
        return event

    def wait(
        self, event: str, where: Callable[[Event], object] = lambda _: True, seconds: float = ANSWER_SECONDS
    ) -> Event:
        """Take in messages until an event comes."""
        end = time.monotonic() + seconds
        while True:
            heard = self.hear(max(0.01, end - time.monotonic()))
            if heard is not None and heard["event"] == event and where(heard):
                return heard

    def last(self, event: str) -> Event:
        """The last event of a kind that was heard."""
        return next(one for one in reversed(self.events) if one["event"] == event)

    def send(self, do: str, **fields: Any) -> int:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "do": do, **fields}))
        return self._number

    def send_bytes(self, data: bytes) -> None:
        self._socket.send(data)

    def ask(self, do: str, **fields: Any) -> Event:
        """Send a verb, and return its reply."""
        number = self.send(do, **fields)
        return self.wait("reply", lambda reply: bool(reply["id"] == number))

    def do(self, verb: str, **fields: Any) -> Event:
        """Send a verb that must succeed."""
        reply = self.ask(verb, **fields)
        assert reply["ok"], reply
        return reply

    def close(self) -> None:
        self._socket.close()
