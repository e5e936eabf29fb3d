"""Where a server keeps snapshots of its sessions, and what it keeps there for all of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from masklet.errors import FailedPrecondition, MaskletError
from masklet_server.session.limits import SnapshotLimits
from masklet_server.session.replies import Response
from masklet_server.snapshots.blobs import BlobStore
from masklet_server.snapshots.shelf import SnapshotShelf

logger = logging.getLogger(__name__)

_KEY = "keys/resume-tokens"
_KEY_BYTES = 32
# Snapshots that are made into bytes and stored at the same time. Each takes its size in memory.
_WRITERS = 2
_LOOK_SECONDS = 60.0


class SnapshotObserver(Protocol):
    """Is told what becomes of snapshots, for metrics."""

    def snapshot(self, outcome: str) -> None:
        """A snapshot was "stored"; or it was not: "failed", "too_large", "full" or "fenced"."""

    def snapshot_bytes(self, size: int) -> None:
        """All snapshots of this server's sessions take so many bytes."""


class SnapshotStore:
    """The snapshots of all sessions, with the key by which every server that shares them knows their tokens.

    Attributes:
        shelf: The snapshots.
        key: Of the tokens.
        limits: Bounds.
        observer: Is told what becomes of snapshots.
        encode: Makes the bytes of a response's message.
        writers: Held while a snapshot is made into bytes and stored.
    """

    def __init__(
        self,
        blobs: BlobStore,
        key: bytes,
        limits: SnapshotLimits,
        observer: SnapshotObserver,
        encode: Callable[[Response], bytes],
    ) -> None:
        self.shelf = SnapshotShelf(blobs)
        self.key = key
        self.limits = limits
        self.observer = observer
        self.encode = encode
        self.writers = asyncio.Semaphore(_WRITERS)
        self._sizes: dict[str, int] = {}

    def has_room(self, session: str, size: int) -> bool:
        """Whether two snapshots of that size of a session may be kept."""
        others = sum(self._sizes.values()) - self._sizes.get(session, 0)
        return others + 2 * size <= self.limits.max_total_bytes

    def count(self, session: str, size: int) -> None:
        """A session's last two snapshots take this at most; 0: it has none any more, or another server has it."""
        self._sizes[session] = 2 * size
        if not size:
            self._sizes.pop(session)
        self.observer.snapshot_bytes(sum(self._sizes.values()))

    async def drop(self, session: str) -> None:
        """A session has ended for good: delete its snapshots. A failure is logged; they then expire."""
        try:
            await self.shelf.drop(session)
        except MaskletError as error:
            logger.warning("the snapshots of a session were not deleted: %s", error, extra={"session": session})
        self.count(session, 0)

    async def expire(self) -> None:
        """Delete snapshots of sessions that have not gone on, again and again. A failure is logged."""
        while True:
            try:
                count = await self.shelf.expire(self.limits.seconds, keep=set(self._sizes))
                if count:
                    logger.info("snapshots of %d sessions have expired", count)
            except MaskletError as error:
                logger.warning("old snapshots were not deleted: %s", error)
            await asyncio.sleep(min(_LOOK_SECONDS, self.limits.seconds))


async def shared_key(blobs: BlobStore, file: Path | None) -> bytes:
    """The key of tokens that all servers know which share a store.

    Args:
        blobs: The store. The first server puts the key there.
        file: A file with the key, in place of that; None: there is none.

    Raises:
        FailedPrecondition: The file cannot be read, or has fewer than 32 bytes; or the stored key is damaged.
        Unavailable: The store cannot be used.
    """
    if file is not None:
        try:
            key = (await asyncio.to_thread(file.read_bytes)).strip()
        except OSError as error:
            raise FailedPrecondition(f"state_key_file {file} cannot be read: {error.strerror}") from error
        if len(key) < _KEY_BYTES:
            raise FailedPrecondition(f"state_key_file {file} has {len(key)} bytes; it needs {_KEY_BYTES} random ones")
        return key
    await blobs.create(_KEY, secrets.token_bytes(_KEY_BYTES))
    stored = await blobs.get(_KEY)
    if stored is None or len(stored) != _KEY_BYTES:
        raise FailedPrecondition(f"{_KEY} in state_dir is damaged; delete it, and sessions of before can't be resumed")
    return stored
