"""Ctrl-C and SIGTERM while something is tracked: the call is ended in good order, so that what was written is kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

TERMINATED = 143


class Terminated(SystemExit):
    """The process was asked to end by SIGTERM."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)

    def __str__(self) -> str:
        return "ended by SIGTERM"


@contextlib.contextmanager
def raised_on_sigterm() -> Iterator[None]:
    """While entered, SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt, so that blocks can clean up."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Signals:
    """While entered, the first SIGINT or SIGTERM cancels what runs. A second one has its usual effect.

    Args:
        cancel: Ends what runs. It is called on a thread of its own.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            self._before = {number: signal.signal(number, self._on_signal) for number in self._NUMBERS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._restore()

    def check(self) -> None:
        """Raise what a signal that came means.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            Terminated: SIGTERM.
        """
        if self._received == signal.SIGINT:
            raise KeyboardInterrupt("interrupted by Ctrl-C")
        if self._received == signal.SIGTERM:
            raise Terminated

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._restore()
        threading.Thread(target=self._cancel, name="masklet-cancel").start()  # a handler may not wait for locks

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
