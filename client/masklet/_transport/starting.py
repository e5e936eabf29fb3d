"""Whether a server listens yet, and whether it speaks TLS: asked with plain sockets beside gRPC's own calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator

CONNECT_SECONDS = 10.0
"""Seconds that clients wait for a server that does not listen yet."""
_BETWEEN_SECONDS = 0.2
_PROBE_SECONDS = 2.0
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


class StartingServer:
    """A server that may be starting. Only a refused connection counts as that; all else is for gRPC to report.

    Args:
        target: "host:port" or "unix:PATH".
        local: The server is on this machine.
        seconds: How long to wait for it.
    """

    def __init__(self, target: str, *, local: bool, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        # Through a proxy nothing can be seen from here.
        self._visible = local or not any(name in os.environ or name.upper() in os.environ for name in _PROXIES)

    def is_awaited(self) -> bool:
        """Whether nobody listens there now, and there is time to wait."""
        return self._seconds > 0 and self._is_refused()

    def wait(self) -> bool:
        """Wait until somebody listens; False where nobody does in time."""
        for _ in self._tries():
            time.sleep(_BETWEEN_SECONDS)
        return not self._is_refused()

    async def wait_async(self) -> bool:
        """Do as `wait` does without blocking the event loop."""
        for _ in self._tries():
            await asyncio.sleep(_BETWEEN_SECONDS)
        return not self._is_refused()

    def speaks_tls(self) -> bool:
        """Whether whoever listens there answers to TLS."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said to it
        context.set_alpn_protocols(["h2"])
        with contextlib.suppress(OSError), self._connected() as plain, context.wrap_socket(plain):
            return True
        return False

    def _tries(self) -> Iterator[None]:
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline and self._is_refused():
            yield

    def _is_refused(self) -> bool:
        if not self._visible:
            return False
        try:
            self._connected().close()
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:
            return False
        return False

    def _connected(self) -> socket.socket:
        if self._target.startswith("unix:"):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(_PROBE_SECONDS)
            try:
                one.connect(self._target.removeprefix("unix:").removeprefix("//"))
            except BaseException:
                one.close()
                raise
            return one
        host, _, port = self._target.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS)
