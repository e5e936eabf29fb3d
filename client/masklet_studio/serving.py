"""Runs the application: the address to listen on, and the address to open."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from masklet.errors import InvalidArgument, Unavailable

MAX_MESSAGE_BYTES = 32 * 1024**2
"""The largest message that a page may send: a mask of many runs."""


def listen(address: str) -> socket.socket:
    """A socket that listens on HOST:PORT.

    Raises:
        InvalidArgument: It is no address.
        Unavailable: It is not free, or not of this machine.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument.of("address", f"is {address!r}, must be HOST:PORT, such as 127.0.0.1:8080")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, because asyncio sets TCP_NODELAY only then: without it, answers wait 40 ms for one another.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, int(port)))
    except OSError as error:
        listening.close()
        raise Unavailable(f"cannot listen on {address}: {error.strerror or error}; give another --address") from error
    return listening


def url_of(listening: socket.socket, token: str) -> str:
    """The address that people open."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - it is compared, not listened on
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def serve(app: ASGIApp, listening: socket.socket, started: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        app: The application.
        listening: From `listen`.
        started: Called once requests are answered.
    """
    config = uvicorn.Config(
        app,
        # uvloop, which uvicorn takes where it is installed, starts processes by fork(). gRPC's threads do
        # not survive that: the process dies.
        loop="asyncio",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # run-lengths are small, and on one machine compressing takes longer
        proxy_headers=False,
    )
    _Server(config, started).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._told()
