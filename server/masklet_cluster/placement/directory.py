"""Which workers Ray Serve runs, as its routers tell it to the process that they are in.

Serve sends a router's whole module to other processes, which could not be done with locks in it. So this is a module of
its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

Addresses = Mapping[str, str]
"""Addresses of workers by the name of the replica; a worker that drains or has died is not in it."""

ADDRESS = "address"
"""What workers tell Serve of themselves, as metadata of the replica."""


class Directory:
    """The workers of one application, as the routers of this process see them. Threads may share it."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._addresses: Addresses | None = None
        self._listeners: list[Callable[[Addresses], object]] = []

    def listen(self, listener: Callable[[Addresses], object]) -> None:
        """Have a function called with the workers now, if they are known, and whenever they change; on any thread."""
        with self._changing:
            self._listeners.append(listener)
            known = self._addresses
        if known is not None:
            listener(known)

    def forget(self, listener: Callable[[Addresses], object]) -> None:
        """Call the function no more."""
        with self._changing:
            self._listeners.remove(listener)

    def update(self, addresses: Addresses) -> None:
        """These are the workers now."""
        with self._changing:
            if addresses == self._addresses:
                return
            self._addresses = addresses
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(addresses)


_directories: dict[str, Directory] = {}
_making = threading.Lock()


def directory(application: str) -> Directory:
    """The workers of an application of Serve."""
    with _making:
        return _directories.setdefault(application, Directory())
