"""Tokens by which clients name the sessions that they resume.

A token is the id of the server that made it, a session's id, and a MAC (HMAC-SHA256, RFC 2104) over both and the
client's identity. Nobody can make a token for a session of somebody else, and a stolen token is of no use to a client
with another identity. How long a session can be resumed is not in the token: the server knows it.

A gateway reads the server's id, and brings the client to that server. It need not have the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

_INSTANCE_BYTES = 4
_ID_BYTES = 16
_MAC_BYTES = hashlib.sha256().digest_size
_TOKEN_BYTES = _INSTANCE_BYTES + _ID_BYTES + _MAC_BYTES


class ResumeTokens:
    """Makes tokens and checks them.

    Args:
        key: The secret; None: a new one, so that only this object knows its tokens.

    Attributes:
        instance_id: Names the run of a server that makes the tokens: 8 hexadecimal digits.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key
        self.instance_id = secrets.token_hex(_INSTANCE_BYTES)

    def token(self, session_id: str, identity: str) -> str:
        """The token of a session.

        Args:
            session_id: 32 hexadecimal digits.
            identity: The client's; empty for a client without one, which anybody may be who has the token.
        """
        number = bytes.fromhex(self.instance_id + session_id)
        return base64.urlsafe_b64encode(number + self._mac(number, identity)).rstrip(b"=").decode()

    def session_id(self, token: str, identity: str) -> str | None:
        """The id of the session that a token names; None if nobody with the key has made it for that identity."""
        data = _decoded(token)
        number, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if len(data) != _TOKEN_BYTES or not hmac.compare_digest(mac, self._mac(number, identity)):
            return None
        return number[_INSTANCE_BYTES:].hex()

    def _mac(self, number: bytes, identity: str) -> bytes:
        return hmac.digest(self._key, number + identity.encode(errors="surrogatepass"), "sha256")


def instance_of(token: str) -> str:
    """The `instance_id` of the server that has made a token; empty for what is no token. It may be forged."""
    data = _decoded(token)
    return data[:_INSTANCE_BYTES].hex() if len(data) == _TOKEN_BYTES else ""


def _decoded(token: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (binascii.Error, UnicodeEncodeError):
        return b""
