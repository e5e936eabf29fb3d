"""How much memory this machine, or the container, has; and giving back what a process does not need any more."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

# Of control groups of the second and of the first version.
_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes() -> int:
    """Bytes of memory that the processes of this machine or container may use together."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *(limit for path in _FILES if (limit := _limit(Path(path))))])


def _limit(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def give_back_free_memory() -> None:
    """Give the memory that is free in this process back to the system, where the C library can (glibc can)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
