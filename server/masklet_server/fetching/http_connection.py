"""HTTP to an address that was checked before."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Sequence
from urllib.parse import SplitResult

from masklet_server.fetching.addresses import resolve
from masklet_server.fetching.rules import FetchRules

_SOCKET_TIMEOUT_SECONDS = 15.0
_PORTS = {"http": 80, "https": 443}


class PinnedConnection(http.client.HTTPConnection):
    """A connection that goes to addresses chosen before, and uses the host's name for TLS and the Host header alone.

    Args:
        host: The host's name.
        port: Its port.
        addresses: Its addresses, which are tried in this order.
        encrypted: Whether TLS is used.
    """

    def __init__(self, host: str, port: int, addresses: Sequence[str], *, encrypted: bool) -> None:
        super().__init__(host, port, timeout=_SOCKET_TIMEOUT_SECONDS)
        self._addresses = addresses
        self._encrypted = encrypted
        self._pinned: socket.socket | None = None
        if encrypted:
            self.default_port = 443  # the Host header leaves out this port

    def connect(self) -> None:
        """Connect to the first address that answers."""
        plain = self.sock = self._connect_plain()
        if self._encrypted:
            try:
                self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)
            except BaseException:
                plain.close()
                raise
        self._pinned = self.sock  # http.client gives its own reference to the response

    def _connect_plain(self) -> socket.socket:
        *others, last = self._addresses
        for address in others:
            with contextlib.suppress(OSError):  # a host with IPv4 and IPv6 can often be reached by one of them only
                return socket.create_connection((address, self.port), _SOCKET_TIMEOUT_SECONDS)
        return socket.create_connection((last, self.port), _SOCKET_TIMEOUT_SECONDS)

    def shut_down(self) -> None:
        """Wake a thread that waits for data; the socket is closed with the response."""
        if self._pinned is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._pinned.shutdown(socket.SHUT_RDWR)


def connect(url: SplitResult, rules: FetchRules) -> PinnedConnection:
    """A connection for a URL that is allowed; nothing is sent yet.

    Raises:
        InvalidArgument: The host's address is not allowed.
        OSError: The host has no address.
    """
    host = url.hostname or ""
    port = url.port or _PORTS[url.scheme]
    return PinnedConnection(host, port, resolve(host, port, rules), encrypted=url.scheme == "https")


def get(connection: PinnedConnection, url: SplitResult) -> http.client.HTTPResponse:
    """Ask for the URL; redirections are not followed.

    Raises:
        OSError, http.client.HTTPException: The server cannot be reached, or does not speak HTTP.
    """
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "masklet"}
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


class ResponseBody:
    """The body of an answer, as it arrives."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def read(self, count: int) -> bytes:
        """Up to so many bytes; none at the end.

        Raises:
            ConnectionError: The server ended the answer too early.
        """
        data = self._response.read1(count)
        if not data and self._response.length:
            raise ConnectionError("the server ended its answer too early")
        return data

    def close(self) -> None:
        """Close the answer and its socket."""
        self._response.close()
