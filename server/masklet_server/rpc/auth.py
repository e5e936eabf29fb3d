"""Who is calling: a bearer token's name, the subject of a client certificate, or the address."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from masklet.errors import InvalidArgument, Unauthenticated

logger = logging.getLogger(__name__)

_BEARER = re.compile(r"bearer\s+(\S+)\s*", re.IGNORECASE)


class TokenFile:
    """Bearer tokens from a file, one a line: ``TOKEN`` or ``NAME TOKEN``; ``#`` starts a comment line.

    The file is read again when it changes. A file that can't be read or understood any more leaves the tokens as they
    were, with an error in the log; one that is emptied lets nobody in. Only digests are kept.

    Raises:
        InvalidArgument: The file can't be read, is malformed, or holds no token at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._current_stamp()
        self._names = self._read()
        if not self._names:
            raise InvalidArgument.of("token_file", f"{path} holds no token; write one on a line of its own")

    def identify(self, token: str) -> str | None:
        """The token's name, or None if it is none of ours; takes the same time whichever it is."""
        self._refresh()
        digest = _digest(token)
        found = None
        for known, name in self._names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _refresh(self) -> None:
        stamp = self._current_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._names = self._read()
        except InvalidArgument as error:
            logger.error("keeping the tokens read before: %s", error)  # the message says all
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
            raise InvalidArgument.of("token_file", f"{self._path} can't be read: {error}") from error
        names: dict[bytes, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) > 2:
                raise InvalidArgument.of("token_file", f"{self._path}, line {number}: write TOKEN or NAME TOKEN")
            names[_digest(words[-1])] = words[0] if len(words) == 2 else f"token-{number}"
        return names


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token of an ``authorization: Bearer TOKEN`` entry, or None."""
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str) and (match := _BEARER.fullmatch(value)):
            return match[1]
    return None


def require_token(tokens: TokenFile, metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The name of the request's token.

    Raises:
        Unauthenticated: There is none, or it is none of ours.
    """
    token = bearer_token(metadata)
    if token is None:
        raise Unauthenticated(
            "this server wants a token: the metadata `authorization: Bearer TOKEN` "
            "(masklet track --token-file FILE, or masklet.Client(token=...))"
        )
    name = tokens.identify(token)
    if name is None:
        raise Unauthenticated("this server does not know the token that was sent")
    return name


def certificate_subject(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """The subject of the client's certificate, if it showed one."""
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
