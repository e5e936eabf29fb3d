"""Memory that was used, and is free in this process, goes back to the system.

The engine lets glibc keep freed memory (see `masklet_server.engine`), because the next frame needs as much. So what a
peak took would stay with the process until somebody asks glibc to give it back.
"""

from __future__ import annotations

import ctypes
import gc
from collections import deque
from collections.abc import Callable
from pathlib import Path

# What a running server may have free. A frame of the largest models needs about as much again and again.
_KEPT_BYTES = 128 * 1024**2
# Memory counts as free if it was so each time that was looked at it.
_LOOKS = 3


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h; `uordblks` is the number of bytes in use."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    ]


def give_back(*, collect: bool) -> None:
    """Give the memory that is free in this process back to the system, where the C library can (glibc can).

    Args:
        collect: Collect garbage first, which stops all threads of Python for tenths of a second.
    """
    if collect:
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def free_bytes() -> int:
    """Bytes of this process's memory that are not in use; some of them cannot be given back. 0 if nobody can tell."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    if mallinfo is None:
        return 0
    mallinfo.restype = _Mallinfo
    resident = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
    return max(0, resident - int(mallinfo().uordblks))


class FreeMemory:
    """Tells when a peak is over: more memory is free than a running server needs, and has been for some time.

    What Python, and compiled code, have beside the C library's memory looks free, too. So what looked free right after
    everything was given back is the measure.

    Args:
        measure: Gives the bytes that look free.
    """

    def __init__(self, measure: Callable[[], int] = free_bytes) -> None:
        self._measure = measure
        self._looks: deque[int] = deque(maxlen=_LOOKS)
        self._usual = 0
        self.given_back()

    def given_back(self) -> None:
        """Everything was given back just now."""
        self._usual = self._measure()
        self._looks.clear()

    def is_too_much(self) -> bool:
        """Look at how much is free; call it at equal intervals."""
        self._looks.append(self._measure() - self._usual)
        return len(self._looks) == _LOOKS and min(self._looks) > _KEPT_BYTES
