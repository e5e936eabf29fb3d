"""Videos that the server fetches itself, from addresses and folders that its operator allows.

The bytes are fetched here, with the standard library, and go the way of an upload: FFmpeg never opens a network
protocol. What is checked, for the URL a client gives and for every redirection:

- Scheme, host and folder are on the operator's lists.
- The host's name is resolved once, and the connection goes to the address that was checked, so that a name cannot mean
  one machine to the check and another to the connection.
- Addresses that are not public (private, loopback, link-local with the clouds' metadata services, and those that embed
  such a one) are refused, unless the operator's list names the host itself rather than by a pattern.
- A file is checked after it was opened, by what the kernel says of the descriptor: links cannot lead out of a folder.

RTSP is left out: nothing but FFmpeg speaks it here, and its sessions name further addresses.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import fnmatch
import http.client
import ipaddress
import os
import socket
import ssl
import stat
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from masklet.errors import DeadlineExceeded, InvalidArgument

FIELD = "config.source_url"
SCHEMES = ("http", "https", "file")
_CHUNK_BYTES = 256 * 1024
_MAX_REDIRECTIONS = 5
_SOCKET_TIMEOUT_SECONDS = 15.0
_MAX_URL_CHARACTERS = 4096
_PORTS = {"http": 80, "https": 443}
# Ranges whose addresses stand for an IPv4 address, which may be a private one: NAT64, 6to4, Teredo.
_EMBEDDING = tuple(ipaddress.IPv6Network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))

T = TypeVar("T")


@dataclass(frozen=True)
class FetchRules:
    """What may be fetched. By default nothing.

    Attributes:
        schemes: Of "http", "https" and "file".
        hosts: Names of hosts, or patterns such as "*.example.org" or "*", which stand for public addresses alone.
        directories: Where files may lie.
        timeout_seconds: For the whole of a video.
    """

    schemes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    directories: tuple[Path, ...] = ()
    timeout_seconds: float = 600.0


class _Body(Protocol):
    """Bytes to be read."""

    def read(self, count: int) -> bytes:
        """Up to so many; none at the end."""

    def close(self) -> None:
        """Let go."""


class Fetch:
    """One video to be fetched.

    Args:
        url: As the client gave it.
        rules: What is allowed.

    Raises:
        InvalidArgument: The URL is malformed or not allowed, as far as can be told without asking anyone.
    """

    def __init__(self, url: str, rules: FetchRules) -> None:
        self._rules = rules
        self._url = _checked(url, rules)
        self._connection: _Pinned | None = None
        self._deadline = 0.0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The video's bytes, as they come.

        Raises:
            InvalidArgument: The address is not allowed, or does not give the video.
            DeadlineExceeded: It took longer than allowed.
        """
        self._deadline = time.monotonic() + self._rules.timeout_seconds
        thread = concurrent.futures.ThreadPoolExecutor(1, "masklet-fetch")
        body: _Body | None = None
        try:
            body = await self._run(thread, self._open)
            while chunk := await self._run(thread, lambda: body.read(_CHUNK_BYTES)):
                yield chunk
        finally:
            if self._connection is not None:
                self._connection.cut()  # a thread that reads notices
            if body is not None:
                thread.submit(body.close)
            thread.shutdown(wait=False)

    async def _run(self, thread: concurrent.futures.Executor, work: Callable[[], T]) -> T:
        left = self._deadline - time.monotonic()
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(thread, work), max(0.0, left))
        except InvalidArgument:
            raise
        except asyncio.TimeoutError:
            raise DeadlineExceeded(
                f"{FIELD}: the video was not fetched within source_timeout_seconds = {self._rules.timeout_seconds:g}"
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Not the system's own words alone: they would tell closed ports from silent ones.
            raise _refusal(f"could not be fetched ({type(error).__name__})") from error

    def _open(self) -> _Body:
        url = self._url
        for _ in range(_MAX_REDIRECTIONS + 1):
            if url.scheme == "file":
                return _open_file(url, self._rules)
            response = self._ask(url)
            location = response.headers.get("Location")
            if response.status == http.HTTPStatus.OK:
                return _HttpBody(response)
            response.close()
            if response.status not in (301, 302, 303, 307, 308) or not location:
                raise _refusal(f"is answered with status {response.status}")
            target = urlsplit(urljoin(url.geturl(), location))
            if target.scheme == "file":
                raise _refusal("leads to a file:// address")
            url = _checked(target.geturl(), self._rules)
        raise _refusal(f"is redirected more than {_MAX_REDIRECTIONS} times")

    def _ask(self, url: SplitResult) -> http.client.HTTPResponse:
        host = url.hostname or ""
        port = url.port or _PORTS[url.scheme]
        addresses = _resolve(host, port, self._rules)
        if self._connection is not None:
            self._connection.close()
        self._connection = _Pinned(host, port, addresses, encrypted=url.scheme == "https")
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._connection.request(
            "GET", path, headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "masklet"}
        )
        return self._connection.getresponse()


class _HttpBody:
    """What a server answers, as it comes."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def read(self, count: int) -> bytes:
        """Up to so many bytes; none at the end."""
        data = self._response.read1(count)
        if not data and self._response.length:
            raise ConnectionError("the server broke off")
        return data

    def close(self) -> None:
        """Let go."""
        self._response.close()


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was chosen before, under the name it was chosen for."""

    def __init__(self, host: str, port: int, addresses: Sequence[str], *, encrypted: bool) -> None:
        super().__init__(host, port, timeout=_SOCKET_TIMEOUT_SECONDS)
        self._addresses = addresses
        self._encrypted = encrypted
        self._pinned: socket.socket | None = None
        if encrypted:
            self.default_port = 443  # which the Host header leaves out

    def connect(self) -> None:
        """Connect to the first address that answers."""
        plain = self.sock = self._connect_plain()
        if self._encrypted:
            try:
                self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)
            except BaseException:
                plain.close()
                raise
        self._pinned = self.sock  # http.client hands its own over to the response

    def _connect_plain(self) -> socket.socket:
        *others, last = self._addresses
        for address in others:
            with contextlib.suppress(OSError):  # a host of two families is often reached by one of them alone
                return socket.create_connection((address, self.port), _SOCKET_TIMEOUT_SECONDS)
        return socket.create_connection((last, self.port), _SOCKET_TIMEOUT_SECONDS)

    def cut(self) -> None:
        """Wake a thread that waits for data; the socket is closed with the response."""
        if self._pinned is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._pinned.shutdown(socket.SHUT_RDWR)


def _checked(url: str, rules: FetchRules) -> SplitResult:
    """The URL in parts, if its scheme and host are allowed."""
    if not rules.schemes:
        raise _refusal("is given, but this server fetches no videos; send the video itself")
    if len(url) > _MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise _refusal(f"must be at most {_MAX_URL_CHARACTERS} printable ASCII characters; percent-encode others")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refusal("is no URL") from None
    if parts.scheme not in rules.schemes:
        raise _refusal(f"has the scheme {parts.scheme or '(none)'}; this server allows {', '.join(rules.schemes)}")
    if parts.username is not None or parts.password is not None:
        raise _refusal("holds a name or password, which is not allowed")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise _refusal("must name a file on the server itself: file:///PATH")
    elif not parts.hostname or port == 0 or not _listed(parts.hostname, rules.hosts):
        raise _refusal(f"names the host {parts.hostname or '(none)'}, which this server does not allow")
    return parts


def _listed(host: str, hosts: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(host.lower().rstrip("."), pattern.lower()) for pattern in hosts)


def _resolve(host: str, port: int, rules: FetchRules) -> list[str]:
    """The host's addresses, all of which may be connected to."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    explicit = host.lower().rstrip(".") in (name.lower() for name in rules.hosts)
    if not explicit and not all(is_public(address) for address in addresses):
        raise _refusal(f"leads to an address that is not public ({host}); the operator has to allow that host by name")
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet's, and stands for no other."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif any(ip in network for network in _EMBEDDING) or int(ip) < 2**32:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _open_file(url: SplitResult, rules: FetchRules) -> _Body:
    path = unquote(url.path)
    refused = _refusal("is no file in a folder that this server allows")
    if "\0" in path or not path.startswith("/"):
        raise refused
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        raise refused from None  # whether there is such a file is nobody's business
    real = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
    allowed = any(real.is_relative_to(folder.resolve()) for folder in rules.directories)
    if not allowed or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refused
    return os.fdopen(descriptor, "rb", buffering=0)


def _refusal(what: str) -> InvalidArgument:
    return InvalidArgument.of(FIELD, what)
