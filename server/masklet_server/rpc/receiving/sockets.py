"""The connections that this process has accepted, as Linux knows them: gRPC tells nothing before a call comes."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

_FOLDER = "/proc/self/fd"
# In Linux's ``struct tcp_info``: bytes that the peer has acknowledged, and bytes that it has sent.
_ACKNOWLEDGED_AND_RECEIVED = struct.Struct("QQ")
_OFFSET = 120
_TCP_INFO_BYTES = _OFFSET + _ACKNOWLEDGED_AND_RECEIVED.size

Peer = tuple[str, int]
"""Address and port of the other side."""


@dataclass(frozen=True)
class Connection:
    """An open connection.

    Attributes:
        peer: The other side.
        sent: Bytes that it has acknowledged.
        received: Bytes that it has sent; 0 where the system does not tell.
        inode: What Linux knows the socket by; a number is used again only when the socket is gone.
    """

    peer: Peer
    sent: int
    received: int
    inode: int


def peer_of(name: str) -> Peer | None:
    """The address and port in gRPC's name of a peer, such as "ipv4:127.0.0.1:5000"; None for other kinds of peers."""
    match = re.fullmatch(r"ipv[46]:\[?([^\]]+)\]?:(\d+)", unquote(name))
    return _normal(match[1], int(match[2])) if match else None


def connections_to(ports: Collection[int]) -> list[Connection]:
    """The open connections to some of this process's ports. Elsewhere than on Linux there seem to be none.

    Raises:
        OSError: The process, or the system, has no free descriptor.
    """
    return [connection for connection, _ in _accepted(ports)]


def end(connections: Collection[Connection], ports: Collection[int]) -> None:
    """End connections: both sides see the end of the stream, and gRPC frees what it had.

    Raises:
        OSError: The process, or the system, has no free descriptor.
    """
    inodes = {connection.inode for connection in connections}
    for connection, sock in _accepted(ports):
        if connection.inode in inodes:
            with contextlib.suppress(OSError):  # the other side has left just now
                sock.shutdown(socket.SHUT_RDWR)


def _accepted(ports: Collection[int]) -> Iterator[tuple[Connection, socket.socket]]:
    """Each connection, and its socket, which is only lent."""
    try:
        names = os.listdir(_FOLDER)  # noqa: PTH208 - some hundred, five times a second
    except FileNotFoundError:  # not Linux
        return
    for name in names:
        if not _is_socket(f"{_FOLDER}/{name}"):
            continue
        with _lent(int(name)) as sock:
            connection = None
            with contextlib.suppress(OSError):  # it listens, or it was closed just now
                connection = _connection(sock, ports)
            if connection is not None:
                yield connection, sock


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")  # noqa: PTH115 - some hundred, five times a second
    except OSError:
        return False  # closed meanwhile


@contextlib.contextmanager
def _lent(number: int) -> Iterator[socket.socket]:
    """A socket by gRPC's own descriptor, which stays open.

    Never by a duplicate: gRPC closes a socket to take it out of epoll, and a duplicate would keep it there. Then an
    event of the socket comes to memory that gRPC has freed, and the process dies. Without one the number may become
    another file's meanwhile; what is read of that is only wrong for one look.
    """
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, fileno=number)
    try:
        yield sock
    finally:
        sock.detach()


def _connection(sock: socket.socket, ports: Collection[int]) -> Connection | None:
    here = sock.getsockname()
    if not isinstance(here, tuple) or here[1] not in ports:
        return None
    there = sock.getpeername()
    sent = received = 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) == _TCP_INFO_BYTES:
        sent, received = _ACKNOWLEDGED_AND_RECEIVED.unpack_from(info, _OFFSET)
    return Connection(_normal(there[0], there[1]), sent, received, os.fstat(sock.fileno()).st_ino)


def _normal(host: str, port: int) -> Peer:
    """One way to write an address, with which IPv4 within IPv6 is IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port
