"""Who calls: the name of a bearer token, the subject of a client certificate, or the address."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from masklet.errors import InvalidArgument, Unauthenticated

logger = logging.getLogger(__name__)

current_client: ContextVar[str] = ContextVar("current_client", default="")
"""Who has made the RPC that runs: the name of its token, the subject of its certificate, or its address."""

current_identity: ContextVar[str] = ContextVar("current_identity", default="")
"""The same if the caller has proved it, by a token or a certificate; else empty. An address proves nothing."""

CLIENT_KEY = "masklet-client"
"""Metadata by which a gateway tells a server who calls; see the setting `trust_gateway`."""
IDENTITY_KEY = "masklet-identity"
"""The same for `current_identity`."""

_BEARER = re.compile(r"bearer\s+(\S+)\s*", re.IGNORECASE)


class TokenFile:
    """Bearer tokens from a file, one a line: ``TOKEN`` or ``NAME TOKEN``; ``#`` starts a comment line.

    The file is read again when it changes. If it cannot be read then, or is malformed, the tokens stay as they were,
    and the log has an error; if it is empty, no token is valid. Only digests of tokens are kept in memory.

    Raises:
        InvalidArgument: At the start, the file cannot be read, is malformed, or has no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._current_stamp()
        self._names = self._read()
        if not self._names:
            raise InvalidArgument.of("token_file", f"{path} has no token; write one token on a line of its own")

    def identify(self, token: str) -> str | None:
        """The token's name; None if the token is not valid. The time that this takes does not depend on the token."""
        self._refresh()
        digest = _digest(token)
        found = None
        for known, name in self._names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def has(self, digest: bytes) -> bool:
        """Whether the token with this digest is valid still."""
        self._refresh()
        return digest in self._names

    def _refresh(self) -> None:
        stamp = self._current_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._names = self._read()
        except InvalidArgument as error:
            logger.error("the tokens stay as they were: %s", error)  # the traceback would add nothing
        else:
            logger.info("read %d tokens from %s", len(self._names), self._path)

    def _current_stamp(self) -> tuple[int, ...]:
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> dict[bytes, str]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument.of("token_file", f"{self._path} cannot be read: {error}") from error
        names: dict[bytes, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) > 2:
                raise InvalidArgument.of(
                    "token_file", f"{self._path}, line {number} has more than two words; write TOKEN or NAME TOKEN"
                )
            names[_digest(words[-1])] = words[0] if len(words) == 2 else f"token-{number}"
        return names


@dataclass(frozen=True)
class Callers:
    """Who may call.

    Attributes:
        tokens: The valid bearer tokens; None: everybody may call.
        trust_gateway: Callers are gateways, which say in the metadata for whom they call.
        ipv6_prefix: Bits of an IPv6 address by which callers without token and certificate are told apart.
    """

    tokens: TokenFile | None
    trust_gateway: bool = False
    ipv6_prefix: int = 64


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token of an ``authorization: Bearer TOKEN`` entry, or None."""
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str) and (match := _BEARER.fullmatch(value)):
            return match[1]
    return None


@dataclass(frozen=True)
class Bearer:
    """Who has sent a valid token.

    Attributes:
        name: The token's name.
        digest: Of the token; `TokenFile.has` knows it.
    """

    name: str
    digest: bytes


def require_token(tokens: TokenFile, metadata: Iterable[tuple[str, str | bytes]]) -> Bearer:
    """Who has sent the request's token.

    Raises:
        Unauthenticated: The request has no token, or one that is not valid.
    """
    token = bearer_token(metadata)
    if token is None:
        raise Unauthenticated(
            "this server needs a token in the metadata: `authorization: Bearer TOKEN` "
            "(masklet track --token-file FILE, or masklet.Client(token=...))"
        )
    name = tokens.identify(token)
    if name is None:
        raise Unauthenticated("the token is not valid on this server; ask its operator for another one")
    return Bearer(name, _digest(token))


def told_by_gateway(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, str]:
    """Who calls a gateway, and the identity that the gateway has seen proved; empty where it says nothing."""
    said = {key: value for key, value in metadata if isinstance(value, str)}
    return unquote(said.get(CLIENT_KEY, "")), unquote(said.get(IDENTITY_KEY, ""))


def certificate_subject(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """The subject of the client's certificate; None if the client has shown none."""
    for key in ("x509_subject", "x509_common_name"):
        for value in auth_context.get(key, ()):
            return value.decode(errors="replace")
    return None


def address_of(peer: str) -> str:
    """The address in gRPC's name of a peer ("ipv4:127.0.0.1:5000"), without its port."""
    kind, _, rest = unquote(peer).partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind == "ipv6":
        return rest.rpartition(":")[0].strip("[]")
    return kind


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
