"""Makes one session's snapshots, and stores them while the session goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masklet.errors import Aborted, MaskletError, ResourceExhausted
from masklet_server.engine.serving.out_of_memory import as_answer
from masklet_server.session.replies import InputPosition, Response
from masklet_server.session.restoring.schedule import Schedule
from masklet_server.session.restoring.state import Captured
from masklet_server.session.restoring.store import SnapshotStore
from masklet_server.snapshots.snapshot import Snapshot

logger = logging.getLogger(__name__)

# After a snapshot that could not be stored, the next one is not tried for so long.
_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class KeptState:
    """The responses that a session's client may not have.

    Attributes:
        numbered: Number, sequence (0: none) and response.
        last: The number of the last response.
        epoch: The number of the last call.
    """

    numbered: Sequence[tuple[int, int, Response]]
    last: int
    epoch: int


class SnapshotWriter:
    """Makes the snapshots of one session. At most one is being stored at any time; it is durable when `stored` is told.

    Attributes:
        is_working: Snapshots can be stored, as far as is known.
        has_stored: One was stored in this life.
        is_fenced: The session goes on at another server.
        began_with: The snapshot from which the session was restored, until another one is stored.
        on_stored: Called with a position and a frame: what the client sent before the position is in a stored snapshot.
        on_fenced: Called when the session goes on at another server.

    Args:
        store: Where they go.
        session: The session's id.
        life: The epoch that this server has claimed; 0: the session is new, and nothing was claimed.
        kept: Gives the responses that the client may not have.
        schedule: Says when one is due.
    """

    def __init__(
        self, store: SnapshotStore, session: str, life: int, kept: Callable[[], KeptState], schedule: Schedule
    ) -> None:
        self.is_working = True
        self.has_stored = self.is_fenced = False
        self.began_with: Snapshot | None = None
        self.on_stored: Callable[[InputPosition, int], None] = lambda position, frame: None
        self.on_fenced: Callable[[Aborted], None] = lambda error: None
        self._store = store
        self._session = session
        self._life = life
        self._kept = kept
        self._schedule = schedule
        self._number = 0
        self._task: asyncio.Task[None] | None = None
        self._is_closed = self._has_claimed = False

    @property
    def life(self) -> int:
        """The epoch that this server has claimed; 0: none."""
        return self._life

    @property
    def is_due(self) -> bool:
        """Whether a snapshot is to be made at the next moment when nothing is under way."""
        return self._task is None and not self._is_closed and self._schedule.is_due

    def frame_tracked(self) -> None:
        """Count a frame that was tracked."""
        self._schedule.frame_tracked()

    def operation_taken(self) -> None:
        """A prompt, a removal or a clearing was taken."""
        self._schedule.ask()

    def take(self, captured: Captured) -> None:
        """Store the session as it is now. Returns at once."""
        self._schedule.taken()
        self._task = asyncio.create_task(self._run(captured, self._kept()), name=f"snapshot {self._session}")
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a bug, for the event loop's log

    async def close(self, *, drop: bool) -> None:
        """Store nothing more, once the snapshot is stored that is being made.

        Args:
            drop: The session has ended for good: its snapshots are deleted.
        """
        self._is_closed = True
        while self._task is not None:
            await asyncio.wait({self._task})
        if drop and self._life and not self.is_fenced:
            await self._store.drop(self._session)
            return
        if not self.has_stored and not self.is_fenced and self.began_with is not None:
            await self._put_back(self.began_with)
        self.began_with = None
        self._store.count(self._session, 0)

    async def _put_back(self, snapshot: Snapshot) -> None:
        """The server ends in an orderly way, before a snapshot was due: so this life is not taken for one that died."""
        try:
            await self._store.shelf.put(self._session, self._life, self._number, snapshot)
        except MaskletError as error:
            logger.warning("a snapshot was not put back: %s", error, extra={"session": self._session})

    async def _run(self, captured: Captured, kept: KeptState) -> None:
        video = captured.state.video
        try:
            async with self._store.writers:
                size = await self._write(captured, kept)
        except Aborted as error:
            self._is_closed = self.is_fenced = True
            self._store.observer.snapshot("fenced")
            self.on_fenced(error)
        except (MaskletError, OSError, MemoryError) as error:
            self._failed(error)
        else:
            self._store.count(self._session, size)
            self._store.observer.snapshot("stored")
            if not self.is_working:
                logger.info("snapshots are stored again", extra={"session": self._session})
            self.is_working = self.has_stored = True
            self.began_with = None
            self.on_stored(
                InputPosition(video.unit, video.count, request_id=captured.state.request_id), video.last_index
            )

    async def _write(self, captured: Captured, kept: KeptState) -> int:
        """Store a snapshot; returns its size.

        Raises:
            Aborted: The session goes on at another server.
            ResourceExhausted: It is too large, or there is no room.
            MaskletError: The store cannot be used.
        """
        try:
            snapshot = await asyncio.to_thread(self._made, captured, kept)
        except RuntimeError as error:  # of torch, whose error for missing memory is no MemoryError
            raise as_answer(error) from error
        size = sum(map(len, snapshot.banks.values())) + sum(map(len, snapshot.responses))
        limits = self._store.limits
        if size > limits.max_bytes:
            raise _TooLarge(f"it has {size} bytes, more than max_snapshot_bytes = {limits.max_bytes}")
        if not self._store.has_room(self._session, size):
            raise _Full(f"all snapshots would take more than max_state_bytes = {limits.max_total_bytes}")
        if self._life == 0:
            await self._claim_first()
        await self._store.shelf.put(self._session, self._life, self._number, snapshot)
        self._number += 1
        return size

    async def _claim_first(self) -> None:
        """Claim the first epoch of a new session, of which no other server knows."""
        shelf = self._store.shelf
        try:
            await shelf.claim(self._session, 1)
        except Aborted:
            if not self._has_claimed or await shelf.newest_epoch(self._session) != 1:
                raise
        except MaskletError:
            self._has_claimed = True  # perhaps: whether it was written is not known
            raise
        self._life = 1

    def _made(self, captured: Captured, kept: KeptState) -> Snapshot:
        """Takes milliseconds: not for the event loop. Banks are copies, and what they share never changes in place."""
        state: dict[str, Any] = {
            "session": captured.state.to_json(),
            "epoch": kept.epoch,
            "last_number": kept.last,
            "responses": [[number, sequence] for number, sequence, _ in kept.numbered],
        }
        banks: Mapping[int, bytes] = {object_id: bank.dump() for object_id, bank in captured.banks.items()}
        responses = [self._store.encode(response) for _, _, response in kept.numbered]
        return Snapshot(captured.state.video.last_index, state, banks, responses)

    def _failed(self, error: Exception) -> None:
        """The session goes on without: its client is told that video counts as taken only as long as this server."""
        why = "too_large" if isinstance(error, _TooLarge) else "full" if isinstance(error, _Full) else "failed"
        self._store.observer.snapshot(why)
        if self.is_working:
            logger.warning(
                "the session goes on, but would not survive this server: no snapshot could be stored: %s",
                error,
                extra={"session": self._session},
            )
        self.is_working = False
        self._schedule.failed(_PAUSE_SECONDS)


class _TooLarge(ResourceExhausted):
    pass


class _Full(ResourceExhausted):
    pass
