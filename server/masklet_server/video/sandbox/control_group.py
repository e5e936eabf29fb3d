"""A control group for decoding processes, where this process may make one: the kernel bounds what all have together.

Control groups of version 2 only. The server must have been given a group of its own ("delegated"), as systemd does with
``Delegate=memory pids``. The kernel wants processes in leaves alone, so the server moves itself to one leaf, and the
fork server to another one; what that forks stays there. See https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

HOW_TO_HAVE = "to have it, give the server a control group of its own (version 2; with systemd: Delegate=memory pids)"
"""What an operator does to get a control group. A strict sandbox does without: memory is bounded in other ways, too."""

_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_OWN_GROUPS = Path("/proc/self/cgroup")
_CONTROLLERS = {"memory", "pids"}
_SERVER, _DECODERS = "masklet-server", "masklet-decoders"


@dataclass(frozen=True)
class GroupBounds:
    """What all decoding processes may have together; 0: no bound.

    Attributes:
        memory_bytes: Memory, with the pixels that they share with the server, and with pages of files.
        processes: Processes and threads.
    """

    memory_bytes: int = 0
    processes: int = 0

    @classmethod
    def of(cls, decoder_memory: int, sessions: int) -> GroupBounds:
        """The bounds that catch what the server's own measurements are too slow for.

        Args:
            decoder_memory: What decoders may have by the server's budget, without what they share; 0: no limit.
            sessions: How many sessions there may be; 0: no limit.
        """
        memory = decoder_memory and decoder_memory * 3 // 2 + 256 * 1024**2
        # A session may have two decoders, each with a thread for each core and some more; and single pictures.
        return cls(memory, (2 * sessions + 16) * ((os.cpu_count() or 1) + 8) if sessions else 0)


class DecoderGroup:
    """The control group of decoding processes.

    Args:
        folder: Of the group.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, process_id: int) -> None:
        """Put a process into the group; what it forks from now on is in it, too."""
        _write(self.folder / "cgroup.procs", process_id)


def delegated_group(roots: tuple[Path, ...] = _ROOTS, own_groups: Path = _OWN_GROUPS) -> Path | None:
    """The folder of this process's control group, if groups can be made in it; None if not.

    Args:
        roots: Where control groups of version 2 may be mounted.
        own_groups: The file that names the groups of this process.
    """
    try:
        lines = own_groups.read_text().splitlines()
        path = next(line.split(":", 2)[2] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    for root in roots:
        folder = root / path.strip("/")
        try:
            controllers = set((folder / "cgroup.controllers").read_text().split())
            processes = [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        except OSError:
            continue
        is_writable = all(
            os.access(one, os.W_OK) for one in (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control")
        )
        # With others in the group, it is not this process's own, and controllers cannot be given to groups in it.
        if controllers >= _CONTROLLERS and is_writable and all(map(_is_ours, processes)):
            return folder
    return None


def _is_ours(process_id: int) -> bool:
    """Whether a process is this one, or a child of it."""
    if process_id == os.getpid():
        return True
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return True
    return int(fields[1]) == os.getpid()


def make_group(bounds: GroupBounds, folder: Path | None = None) -> DecoderGroup | None:
    """Make a group for decoding processes, beside one for this process and its other children.

    Args:
        bounds: What the group may have.
        folder: The group in which both are made; None: the one of this process.

    Returns:
        The group; None where it cannot be made. The log says why if it looked as if it could.
    """
    folder = folder or delegated_group()
    if folder is None:
        return None
    server, decoders = folder / _SERVER, folder / _DECODERS
    try:
        server.mkdir(exist_ok=True)
        decoders.mkdir(exist_ok=True)
        for process in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                _write(server / "cgroup.procs", process)
        _write(folder / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(_CONTROLLERS)))
        _write(decoders / "memory.max", bounds.memory_bytes or "max")
        _write(decoders / "pids.max", bounds.processes or "max")
    except OSError as error:
        logger.warning("no control group for decoding processes could be made in %s: %s", folder, error)
        return None
    return DecoderGroup(decoders)


def _write(file: Path, value: str | int) -> None:
    file.write_text(str(value))
