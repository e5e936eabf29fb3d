"""The client's messages on their way into a session that outlives its calls.

Messages arrive in order, so what the session has taken is always the beginning of what the client sent. The inbox
counts it: a client that comes back sends the rest. It holds one message at most. What a call had received, and the
inbox had no room for, was not taken.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from masklet.errors import InvalidArgument, MaskletError
from masklet_server.session import events
from masklet_server.session.events import Event
from masklet_server.session.replies import InputPosition
from masklet_server.session.resuming.signals import Signal

_NOTHING = InputPosition()


class Inbox:
    """Gives a session its client's messages, one at a time, whichever call they came with. An asynchronous iterator.

    Attributes:
        position: What was taken so far.
        epoch: Only the call of this epoch may put messages in.

    Args:
        known: Numbers of requests that the session knows already, because it begins anew, or was restored.
        position: What a restored session had taken.
    """

    def __init__(self, known: Collection[int] = (), position: InputPosition = _NOTHING) -> None:
        self._known = frozenset(known)
        self.position = position
        self.epoch = 0
        self._waiting: Event | None = None
        self._failure: MaskletError | None = None
        self._is_finished = False
        self._changed = Signal()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Event:
        await self._changed.until(lambda: self._waiting is not None or self._failure is not None or self._is_finished)
        event, self._waiting = self._waiting, None
        if event is None:
            if self._failure is not None:
                raise self._failure
            raise StopAsyncIteration
        self._changed.give()
        return event

    async def put(self, event: Event, epoch: int) -> bool:
        """Wait until there is room for a message, and put it in. A message that is known already is dropped.

        Returns:
            Whether the call may go on to put messages in: False if another call has taken its place.
        """
        await self._changed.until(lambda: self._waiting is None or self._is_finished or epoch != self.epoch)
        if epoch != self.epoch:
            return False
        new = None if self._is_finished else self._if_new(event)
        if new is not None:
            self._count(new)
            self._waiting = new
            self._changed.give()
        return True

    def finish(self, epoch: int) -> None:
        """The client will say nothing more."""
        if epoch == self.epoch:
            self._is_finished = True
            self._changed.give()

    def fail(self, error: MaskletError, epoch: int) -> None:
        """A message could not be understood at all: the session ends with the error."""
        if epoch == self.epoch:
            self._failure = error
            self._changed.give()

    def begin(self, epoch: int) -> None:
        """From now on only the call of this epoch may put messages in."""
        self.epoch = epoch
        self._changed.give()

    def _if_new(self, event: Event) -> Event | None:
        """The message, an error in its place if its number is missing, or None if it was taken before."""
        if isinstance(event, events.EndOfVideo) and self.position.end_of_video:
            return None
        if not isinstance(event, events.Numbered):
            return event
        if event.request_id == 0:
            return event if isinstance(event, events.Unreadable) else events.Unreadable(_NO_NUMBER)
        is_known = event.request_id <= self.position.request_id or event.request_id in self._known
        return None if is_known else event

    def _count(self, event: Event) -> None:
        position = self.position
        match event:
            case events.VideoChunk():
                size, count = position.size + len(event.data), position.count + len(event.data)
                position = replace(position, unit="video_bytes", count=count, size=size)
            case events.NextPicture():
                size = position.size + len(event.picture.data)
                position = replace(position, unit="frame_count", count=position.count + 1, size=size)
            case events.NextPacket():
                size = position.size + len(event.packet.data)
                position = replace(position, unit="packet_count", count=position.count + 1, size=size)
            case events.EndOfVideo():
                position = replace(position, end_of_video=True)
            case events.Numbered() if event.request_id:
                position = replace(position, request_id=event.request_id)
        self.position = position


_NO_NUMBER = InvalidArgument.of(
    "request_id", "is missing; in a resumable session each request has a number, above that of the request before"
)
