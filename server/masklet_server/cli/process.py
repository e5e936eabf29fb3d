"""What the servers' commands do with their own process; an embedded server leaves its program alone."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import signal
import sys
from collections.abc import Callable

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


class Signals:
    """While entered, the first SIGTERM or SIGINT asks to stop, the second to hurry, and the third kills the process.

    Args:
        stop: Set by the first signal.
        hurry: Called by the second one.
    """

    _NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, stop: asyncio.Event, hurry: Callable[[], None]) -> None:
        self._stop = stop
        self._hurry = hurry
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in self._NUMBERS:
            self._loop.add_signal_handler(number, self._received)

    def __exit__(self, *exc_info: object) -> None:
        for number in self._NUMBERS:
            self._loop.remove_signal_handler(number)

    def _received(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        self._hurry()
        for number in self._NUMBERS:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
