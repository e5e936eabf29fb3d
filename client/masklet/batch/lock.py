"""Locks of a batch's folder: no clip is done by two runs at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from masklet.batch.clips import Shard
from masklet.errors import FailedPrecondition

_PREFIX, _SUFFIX = "lock", ".txt"


@contextlib.contextmanager
def locked(folder: Path, shard: Shard | None) -> Iterator[None]:
    """Hold a batch's folder, or one shard of it. The kernel lets go of it when the process dies.

    Shards of one division may be worked on at the same time, each by one run.

    Args:
        folder: The folder of results.
        shard: The part; None: all of it.

    Raises:
        FailedPrecondition: Another run holds it, or a part that may overlap.
        OSError: The folder cannot be written to.
    """
    mine = folder / f"{_PREFIX}{suffix_of(shard)}{_SUFFIX}"
    with contextlib.ExitStack() as stack:
        # Only while this looks at the others: so two that begin at the same time see one another.
        with _opened(folder / f"{_PREFIX}-guard{_SUFFIX}") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            for other in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
                is_mine = other in (mine, folder / f"{_PREFIX}-guard{_SUFFIX}")
                if not is_mine and other.is_file() and not _may_run_beside(other, shard):
                    with _opened(other) as handle:
                        _take(handle, other)
            handle = stack.enter_context(_opened(mine))
            _take(handle, mine)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield


def suffix_of(shard: Shard | None) -> str:
    """What files of a shard have in their names; empty for those of a whole batch."""
    return "" if shard is None else f"-{shard.number}-of-{shard.count}"


def _may_run_beside(other: Path, shard: Shard | None) -> bool:
    return shard is not None and other.stem.endswith(f"-of-{shard.count}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def _take(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
        raise FailedPrecondition(
            f"{path.parent} is in use by another batch ({holder}); wait for it, or give another folder"
        ) from None
