"""Where the server is and how to talk to it: address, TLS, token, the limits of a message."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import grpc

from masklet._protocol.pictures import MAX_MESSAGE_BYTES
from masklet.errors import InvalidArgument

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"

Pem = bytes | str | os.PathLike[str]
"""A certificate or key: the PEM itself as bytes, or the path of a file that holds it."""

# Without them, nobody would notice that a network drops everything. Servers of masklet allow one every ten seconds.
_KEEPALIVE_MS = 30_000
_KEEPALIVE_TIMEOUT_MS = 10_000
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+)(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Tls:
    """The encryption that a client asks for; `Client` describes the arguments.

    Attributes:
        root_certificates: Authorities to trust instead of the system's.
        client_certificate: This client's certificate, for servers that ask for one.
        client_key: The certificate's private key.
        secure: Whether to use TLS; None: as the address and the certificates suggest.
    """

    root_certificates: Pem | None = None
    client_certificate: Pem | None = None
    client_key: Pem | None = None
    secure: bool | None = None

    def credentials(self, *, local: bool) -> grpc.ChannelCredentials | None:
        """The channel's credentials; None for plain text.

        Args:
            local: The server is on this machine.

        Raises:
            InvalidArgument: The arguments contradict one another.
            OSError: A certificate's file cannot be read.
        """
        given = any(part is not None for part in (self.root_certificates, self.client_certificate, self.client_key))
        secure = (given or not local) if self.secure is None else self.secure
        if not secure and given:
            raise InvalidArgument.of("secure", "is False, but certificates are given; leave one of them out")
        if (self.client_certificate is None) != (self.client_key is None):
            raise InvalidArgument.of("client_certificate", "and client_key go together; give both or neither")
        if not secure:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self.root_certificates),
            private_key=_pem(self.client_key),
            certificate_chain=_pem(self.client_certificate),
        )


@dataclass(frozen=True)
class Endpoint:
    """A server, ready to be dialled.

    Attributes:
        target: What gRPC dials: "host:port" or "unix:PATH".
        local: True where the server is on this machine.
        credentials: TLS, or None for plain text.
        metadata: Sent with every call.
    """

    target: str
    local: bool
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, address: str, *, token: str | None = None, tls: Tls | None = None) -> Endpoint:
        """Check a client's arguments.

        Args:
            address: "HOST:PORT", "HOST" (port 50051) or "unix:PATH".
            token: Bearer token.
            tls: The encryption that the client asks for; None: as the address suggests.

        Raises:
            InvalidArgument: The address is malformed, or the arguments contradict one another.
            OSError: A certificate's file cannot be read.
        """
        target, local = _parse(address)
        credentials = (tls or Tls()).credentials(local=local)
        metadata = () if token is None else (("authorization", f"Bearer {_checked_token(token)}"),)
        return cls(target, local, credentials, metadata)

    def __str__(self) -> str:
        return self.target if self.credentials is None else f"{self.target} over TLS"

    def channel(self) -> grpc.Channel:
        """A new channel to the server, which connects on first use."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, self._options())
        return grpc.secure_channel(self.target, self.credentials, self._options())

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            # A server that is starting is noticed soon.
            ("grpc.initial_reconnect_backoff_ms", 300),
            ("grpc.max_reconnect_backoff_ms", 2_000),
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
    return f"{host}:{port}", is_local(f"{host}:{port}")


def is_local(address: str) -> bool:
    """Whether HOST:PORT is on this machine."""
    host = address.rpartition(":")[0]
    return host in ("localhost", "[::1]") or re.fullmatch(r"127(\.\d+){3}", host) is not None


def _pem(source: Pem | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    return Path(source).read_bytes()


def _checked_token(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument.of("token", "must be printable ASCII without spaces")
    return token
