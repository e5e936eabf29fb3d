"""Checks an address before the server listens on it, so that the error is clear and comes early."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

from masklet.errors import Unavailable
from masklet_server.addresses import split_address


def check_free(address: str, setting: str = "address") -> None:
    """Check that the server could listen on the address now. This is quick, and comes before models are loaded.

    Raises:
        Unavailable: Another program listens there, the address is not this machine's, or this user may not use it.
    """
    parts = split_address(address)
    try:
        if parts is None:
            _try_unix(address)
        else:
            _try_tcp(*parts)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        advice = (
            f"stop the program that uses it, or choose another {setting}"
            if error.errno == errno.EADDRINUSE
            else f"choose another {setting}"
        )
        raise Unavailable(f"cannot listen on {address}: {reason}; {advice}") from error


def _try_tcp(host: str, port: int) -> None:
    family, kind, protocol, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    with socket.socket(family, kind, protocol) as probe:
        # As gRPC does: a port in TIME_WAIT is free, a port on which a program listens is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(name)


def _try_unix(address: str) -> None:
    """Refuse a socket on which a server answers. One without a server is left over, and gRPC replaces it."""
    if not address.startswith("unix:"):
        return
    path = Path(address.removeprefix("unix:").removeprefix("//"))
    if not path.parent.is_dir():
        raise OSError(errno.ENOENT, f"there is no folder {path.parent}")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise OSError(errno.EADDRINUSE, "another server answers there")
