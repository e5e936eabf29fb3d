"""The server that a program starts inside itself; found by its entry point, as the client imports no server."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from masklet.errors import Unavailable

EMBEDDED_SERVER = "masklet.embedded_server"
HOW_TO_INSTALL = "install the server: https://github.com/masklet/masklet/blob/main/docs/start/install.md#the-server"


def load(entry: EntryPoint, purpose: str) -> Any:
    """Import what an entry point names.

    Args:
        entry: The entry point.
        purpose: What needs it, for the error.

    Raises:
        Unavailable: One of its packages is not installed; the message says how to install them.
    """
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{purpose} needs the server's packages ({error.name} is missing); {HOW_TO_INSTALL}"
        ) from error


def embedded_server(purpose: str) -> Callable[..., Any]:
    """The class that runs a server inside this process.

    Args:
        purpose: What needs it, for the error: "to ..., masklet starts a server of its own, which".

    Raises:
        Unavailable: The server's packages are not installed.
    """
    for entry in entry_points(group=EMBEDDED_SERVER, name="default"):
        loaded: Callable[..., Any] = load(entry, purpose)
        return loaded
    raise Unavailable(f"{purpose} is not installed; {HOW_TO_INSTALL}")
