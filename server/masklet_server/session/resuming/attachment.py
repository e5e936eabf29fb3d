"""Joins one call to a resumable session: its messages go into the session, the session's responses to its client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from masklet.errors import Aborted, Cancelled, DeadlineExceeded, MaskletError
from masklet_server.session import events, replies
from masklet_server.session.events import Event
from masklet_server.session.replies import InputPosition, Send
from masklet_server.session.resuming.resumable_session import ResumableSession, copied, granted
from masklet_server.session.resuming.state import Presence

# A call whose connection breaks looks for a moment as if the client had half-closed.
_HALF_CLOSE_SECONDS = 0.25
# A client that does not read is not waited for longer than this, once its session has ended for that reason.
_UNREAD_SECONDS = 0.5
# Nor longer than this between two responses, once its session has ended in another way.
_LAST_SECONDS = 30.0
# So much is taken between two `InputKept`.
KEPT_BYTES = 4 * 1024**2
KEPT_PIECES = 32


class Attachment:
    """One call of a resumable session.

    Attributes:
        session: The session.
        epoch: The call's number.
        token: Names the session in a `Resume`.
        is_told: The client may know the session, because it has come back to it, or was told of it.
        has_answered: A response of the session itself was written.

    Args:
        session: The session.
        grant: How the client can resume the session.
        resumed: What a client that has resumed the session is told; None in the session's first call.
    """

    def __init__(self, session: ResumableSession, grant: replies.ResumeGrant, resumed: replies.Resumed | None) -> None:
        self.session = session
        self.epoch = grant.epoch
        self.token = grant.token
        self._grant = grant
        self._resumed = resumed
        self.is_told = resumed is not None
        self.has_answered = resumed is not None
        self._notes: deque[replies.Response] = deque()
        self._told = session.inbox.position if resumed is not None else InputPosition()

    @property
    def _is_current(self) -> bool:
        return self.session.epoch == self.epoch and self.session.presence is Presence.ATTACHED

    def note(self, response: replies.Response) -> None:
        """Say something that is about this call alone, before further responses of the session."""
        if isinstance(response, replies.InputKept):  # a client that does not read needs the last one only
            self._notes = deque(one for one in self._notes if not isinstance(one, replies.InputKept))
        self._notes.append(response)
        self.session.changed.give()

    async def run(self, incoming: AsyncIterator[Event], write: Send) -> None:
        """Join the call to the session, until the session has ended or another call has taken it.

        Args:
            incoming: The call's messages after the first one; ends when the client half-closes.
            write: Writes a response to the call; waits while the client does not read.

        Raises:
            Aborted: Another call has taken the session.
            MaskletError: The session has ended with this error.
            Exception: The call is broken. The session can be resumed.
        """
        tasks = [self._begin(self._receive(incoming)), self._begin(self._write_all(write)), self._begin(self._lost())]
        try:
            await self._until_over(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tasks.clear()  # their exceptions refer to this frame
        error = self._end()
        if error is not None:
            raise error

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(coroutine, name=f"attachment {self.epoch} of {self.session.id}")

    async def _until_over(
        self, receiving: asyncio.Task[None], writing: asyncio.Task[None], lost: asyncio.Task[None]
    ) -> None:
        ended = self._begin(self._ended_unread())
        try:
            pending = {receiving, writing, lost, ended}
            while not (writing.done() or lost.done() or ended.done()):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            del receiving, writing, lost, ended

    def _end(self) -> MaskletError | None:
        """The error with which the call ends."""
        if self.session.epoch != self.epoch:
            return Aborted("another call has resumed this session; this one is over")
        outcome = self.session.outcome
        assert outcome is not None, "the session is over, or this call has lost it"
        return None if outcome.error is None else copied(outcome.error)

    async def _lost(self) -> None:
        """Wait until another call has taken the session, or until it has ended for good."""
        session = self.session
        await session.changed.until(
            lambda: session.epoch != self.epoch or (session.presence is Presence.ENDED and session.outcome is not None)
        )

    async def _ended_unread(self) -> None:
        """Wait until the session is over, and the client then reads nothing for too long."""
        session = self.session
        await session.changed.until(lambda: session.outcome is not None)
        assert session.outcome is not None
        is_slow = isinstance(session.outcome.error, DeadlineExceeded)
        while True:
            before = session.next_response()
            await asyncio.sleep(_UNREAD_SECONDS if is_slow else _LAST_SECONDS)
            if session.next_response() is before:
                return

    # From the client

    async def _receive(self, incoming: AsyncIterator[Event]) -> None:
        inbox = self.session.inbox
        try:
            async for event in incoming:
                if isinstance(event, events.Cancel):
                    self.session.end(Cancelled("the client asked to cancel"))
                    return
                if isinstance(event, events.Ack):
                    self.session.acknowledge(event.sequence)
                if not await inbox.put(event, self.epoch):
                    return
                self._tell_kept()
        except MaskletError as error:
            inbox.fail(error, self.epoch)
            return
        await asyncio.sleep(_HALF_CLOSE_SECONDS)
        inbox.finish(self.epoch)

    def _tell_kept(self) -> None:
        """Tell the client from time to time how much was taken; where snapshots are made, they count instead."""
        if self.session.snapshots is not None and self.session.snapshots.is_working:
            return
        told, position = self._told, self.session.inbox.position
        pieces = position.count - told.count if position.unit != "video_bytes" else 0
        requests = position.request_id - told.request_id
        if position.size - told.size >= KEPT_BYTES or max(pieces, requests) >= KEPT_PIECES:
            self._told = position
            self.note(replies.InputKept(position))

    # To the client

    async def _write_all(self, write: Send) -> None:
        session = self.session
        opened = await session.opened()
        if opened is not None:
            await write(granted(opened, self._grant))
            self.is_told = True
            if self._resumed is not None:
                await write(self._resumed)
        while self._is_current and not session.is_delivered:
            if self._notes:
                await write(self._notes.popleft())
            elif (kept := session.next_response()) is not None:
                await write(replies.Numbered(kept.number, kept.response))
                self.has_answered = True
                session.wrote(kept.number, self.epoch)
            else:
                await session.changed.until(self._has_more)
        await session.changed.until(lambda: session.outcome is not None or session.epoch != self.epoch)

    def _has_more(self) -> bool:
        session = self.session
        return (
            bool(self._notes)
            or not self._is_current
            or session.outcome is not None
            or session.next_response() is not None
        )
