"""Where the server is and how it is spoken to: address, TLS, token, the limits of a message."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import grpc

from masklet.errors import InvalidArgument

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
MAX_MESSAGE_BYTES = 32 * 1024**2

Pem = bytes | str | os.PathLike[str]
"""A certificate or key: the PEM itself as bytes, or the path of a file that holds it."""

# gRPC servers take pings more often than every five minutes for abuse unless they are told otherwise.
_KEEPALIVE_MS = 310_000
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+)(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Endpoint:
    """A server, ready to be dialled.

    Attributes:
        target: What gRPC dials: "host:port" or "unix:PATH".
        local: On this machine.
        credentials: TLS, or None for plain text.
        metadata: Sent with every call.
    """

    target: str
    local: bool
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]

    @classmethod
    def of(
        cls,
        address: str,
        *,
        token: str | None = None,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        secure: bool | None = None,
    ) -> Endpoint:
        """Check a client's arguments.

        Raises:
            InvalidArgument: The address is malformed, or the arguments contradict one another.
            OSError: A certificate's file cannot be read.
        """
        target, local = _parse(address)
        given = any(part is not None for part in (root_certificates, client_certificate, client_key))
        if secure is None:
            secure = given or not local
        if not secure and given:
            raise InvalidArgument.of("secure", "is False, but certificates are given; leave one of them out")
        if (client_certificate is None) != (client_key is None):
            raise InvalidArgument.of("client_certificate", "and client_key go together; give both or neither")
        credentials = None
        if secure:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_pem(root_certificates),
                private_key=_pem(client_key),
                certificate_chain=_pem(client_certificate),
            )
        metadata = () if token is None else (("authorization", f"Bearer {_checked_token(token)}"),)
        return cls(target, local, credentials, metadata)

    def __str__(self) -> str:
        return self.target if self.credentials is None else f"{self.target} over TLS"

    def channel(self) -> grpc.Channel:
        """A new channel."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, self._options())
        return grpc.secure_channel(self.target, self.credentials, self._options())

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            # A proxy from the environment is never the way to this machine itself.
            ("grpc.enable_http_proxy", 0 if self.local else 1),
        ]


def _parse(address: str) -> tuple[str, bool]:
    if address.startswith("unix:"):
        return address, True
    match = _HOST_PORT.fullmatch(address)
    if match is None:
        raise InvalidArgument.of("address", f"{address!r} is not HOST:PORT, such as {DEFAULT_ADDRESS}")
    host, port = match["host"], int(match["port"] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise InvalidArgument.of("address", f"{address!r} has no port between 1 and 65535")
    local = host in ("localhost", "[::1]") or re.fullmatch(r"127(\.\d+){3}", host) is not None
    return f"{host}:{port}", local


def _pem(source: Pem | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    return Path(source).read_bytes()


def _checked_token(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument.of("token", "must be printable ASCII without spaces")
    return token
