"""The snapshots of all sessions, with one writer for each session: the attachment with the highest epoch.

An epoch is one life of a session on one server. Before a server goes on with a session, it claims the next epoch. Only
one server can. A server that is cut off, and does not know that its session lives on elsewhere, writes to an epoch that
nobody reads any more; and the next time it writes it is told so.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

from masklet.errors import Aborted, DataLoss, InvalidArgument
from masklet_server.snapshots.blobs import BlobInfo, BlobStore
from masklet_server.snapshots.snapshot import Snapshot

logger = logging.getLogger(__name__)

# Nothing is deleted of a session that has changed within that time, whatever age a wrong clock gives its snapshots.
WATCH_SECONDS = 600.0
_FOLDER = "sessions"
_CLAIM = "claim"
_NAME = re.compile(rf"{_FOLDER}/(?P<session>[0-9a-f]+)/(?P<epoch>\d+)/(?:{_CLAIM}|(?P<number>\d+)\.snapshot)")


class SnapshotShelf:
    """Snapshots in a `BlobStore`.

    A server that wants to go on with a session asks for the `newest` epoch, claims the next one, and asks again. What
    the server before it writes after the claim does not count any more.

    Of each session the last two snapshots are kept, so that a damaged one does not lose the session.

    Args:
        blobs: Where the bytes lie.
        clock: Gives seconds that never go back; another one for tests.
    """

    def __init__(self, blobs: BlobStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs = blobs
        self._clock = clock
        self._seen: dict[str, tuple[frozenset[str], float]] = {}  # of each session its names, and since when

    async def claim(self, session: str, epoch: int) -> None:
        """Become the only writer of a session.

        Raises:
            Aborted: Another server has claimed this epoch or a later one.
        """
        if not await self._blobs.create(f"{_epoch_folder(session, epoch)}/{_CLAIM}", b""):
            raise Aborted(f"epoch {epoch} of session {session} was claimed by another server")
        await self._check_newest(session, epoch)

    async def put(self, session: str, epoch: int, number: int, snapshot: Snapshot) -> None:
        """Store a snapshot. When this returns it survives the server.

        Args:
            session: The session's id, hexadecimal.
            epoch: Claimed before.
            number: 0 for the first snapshot of an epoch, and one more for each further one.
            snapshot: What to store.

        Raises:
            Aborted: The session goes on at another server; nothing that this one makes of it may be sent any more.
        """
        folder = _epoch_folder(session, epoch)
        data = await asyncio.to_thread(snapshot.to_bytes)  # a checksum over megabytes
        await self._blobs.put(f"{folder}/{number:012}.snapshot", data)
        await self._check_newest(session, epoch)
        if number == 1:  # two of this epoch are there, so nothing of earlier ones is needed
            await self._blobs.delete([name for each, _, name in await self._of(session) if each < epoch])
        if number >= 2:
            await self._blobs.delete([f"{folder}/{number - 2:012}.snapshot"])

    async def newest(self, session: str) -> tuple[int, Snapshot | None]:
        """The highest claimed epoch of a session, 0 if there is none, and its last undamaged snapshot.

        A snapshot of a lower epoch counts if the highest has none yet. Damaged ones are passed over, with a line in the
        log.
        """
        async for _, snapshot in self.snapshots(session):
            return await self.newest_epoch(session), snapshot
        return await self.newest_epoch(session), None

    async def newest_epoch(self, session: str) -> int:
        """The highest claimed epoch of a session; 0: there is none."""
        return max((epoch for epoch, _, _ in await self._of(session)), default=0)

    async def snapshots(self, session: str) -> AsyncIterator[tuple[int, Snapshot]]:
        """The undamaged snapshots of a session with their epochs, the newest first.

        Damaged ones, and those of another version, are passed over, with a line in the log.
        """
        found = await self._of(session)
        for epoch, _, name in sorted((one for one in found if one[1] is not None), reverse=True):
            data = await self._blobs.get(name)
            if data is None:  # deleted meanwhile
                continue
            try:
                snapshot = await asyncio.to_thread(Snapshot.from_bytes, data)
            except DataLoss as error:
                logger.warning("session %s: a snapshot of epoch %d is passed over: %s", session, epoch, error)
                continue
            yield epoch, snapshot

    async def drop(self, session: str) -> None:
        """Delete all that is stored of a session."""
        await self._blobs.delete([info.name for info in await self._blobs.names(_session_folder(session))])

    async def expire(self, seconds: float, *, keep: Collection[str] = ()) -> int:
        """Delete the sessions of which nothing was written for so long; returns how many there were.

        Clocks of machines can be wrong, and can jump. So a session is deleted only when this object itself has seen no
        change of it for `WATCH_SECONDS`, or for `seconds` if that is less, from one call to another.

        Args:
            seconds: How long.
            keep: Sessions that go on at this server, however old their snapshots are.
        """
        by_session: dict[str, list[BlobInfo]] = {}
        for info in await self._blobs.names(_FOLDER):
            if match := _NAME.fullmatch(info.name):
                by_session.setdefault(match["session"], []).append(info)
        still = self._still(by_session, min(seconds, WATCH_SECONDS))
        old = {
            name: files
            for name, files in by_session.items()
            if min(f.age_seconds for f in files) > seconds and name in still and name not in keep
        }
        for files in old.values():
            await self._blobs.delete([info.name for info in files])
        return len(old)

    def _still(self, by_session: Mapping[str, Sequence[BlobInfo]], seconds: float) -> Collection[str]:
        """Sessions of which nothing has changed for so long."""
        now, before = self._clock(), self._seen
        self._seen = {}
        for session, files in by_session.items():
            names = frozenset(info.name for info in files)
            seen = before.get(session)
            self._seen[session] = seen if seen is not None and seen[0] == names else (names, now)
        return {session for session, (_, since) in self._seen.items() if now - since >= seconds}

    async def _check_newest(self, session: str, epoch: int) -> None:
        newest = max(each for each, _, _ in await self._of(session))
        if newest > epoch:
            raise Aborted(f"session {session} goes on at another server, in epoch {newest}; this one was {epoch}")

    async def _of(self, session: str) -> Sequence[tuple[int, int | None, str]]:
        """Epoch, number (None for a claim) and name of everything that is stored of a session."""
        found = []
        for info in await self._blobs.names(_session_folder(session)):
            if match := _NAME.fullmatch(info.name):
                number = match["number"]
                found.append((int(match["epoch"]), None if number is None else int(number), info.name))
        return found


def _session_folder(session: str) -> str:
    if not re.fullmatch("[0-9a-f]+", session):
        raise InvalidArgument.of("session", f"{session!r} is not the id of a session")
    return f"{_FOLDER}/{session}"


def _epoch_folder(session: str, epoch: int) -> str:
    return f"{_session_folder(session)}/{epoch:08}"
