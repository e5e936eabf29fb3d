"""The decoding processes of this process, which in many tests also runs the server."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

# What a decoding process does not import: it would start more slowly, and have more to give away.
HEAVY_IMPORTS = {"grpc", "numpy", "pydantic", "torch"}


def decoders(of: int | None = None) -> set[int]:
    """Process ids of the living decoding processes of a server; None: of the one in this process.

    The fork server forked them, and it is a child of the server.
    """
    server = os.getpid() if of is None else of
    parents = _parents()
    servers = {pid for pid, parent in parents.items() if parent == server and _is_fork_server(pid)}
    return {pid for pid, parent in parents.items() if parent in servers}


def descendants(of: int) -> list[int]:
    """Process ids of all processes that a process has started, and of those that they have started; parents first."""
    parents = _parents()
    found, more = list[int](), {of}
    while more := {pid for pid, parent in parents.items() if parent in more}:
        found += sorted(more)
    return found


def _parents() -> dict[int, int]:
    """The parent of each living process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            if status[0] != "Z":
                parents[int(entry.name)] = int(status[1])
    return parents


def settle(goal: int, seconds: float = 15) -> None:
    """Wait until at most `goal` decoding processes are left."""
    deadline = time.monotonic() + seconds
    while len(decoders()) > goal and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(decoders()) <= goal


def _is_fork_server(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"masklet_server.video.worker.fork_server_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
