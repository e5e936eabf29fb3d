"""What ``masklet serve`` sets for its own process, before it serves. An embedded server leaves its program alone."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys

_DESCRIPTORS = 8192
_PR_SET_DUMPABLE = 4


def allow_many_descriptors() -> None:
    """Raise the soft limit. Each connection and each decoder takes some; it is often 256 or 1024, for select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def hide_memory() -> None:
    """Keep other processes of this user from reading the server's memory, which has keys and tokens; no core dumps."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def collect_less() -> None:
    """Leave what was loaded out of garbage collections, which stop all threads: it stays to the end anyway."""
    gc.collect()
    gc.freeze()
