"""Tokens by which clients name the sessions that they resume.

A token is a session's id and a MAC (HMAC-SHA256, RFC 2104) over the id and the client's identity. Nobody can make a
token for a session of somebody else, and a stolen token is of no use to a client with another identity. How long a
session can be resumed is not in the token: the server knows it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

_ID_BYTES = 16
_MAC_BYTES = hashlib.sha256().digest_size


class ResumeTokens:
    """Makes tokens and checks them.

    Args:
        key: The secret; None: a new one, so that only this object knows its tokens.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    def token(self, session_id: str, identity: str) -> str:
        """The token of a session.

        Args:
            session_id: 32 hexadecimal digits.
            identity: The client's; empty for a client without one, which anybody may be who has the token.
        """
        number = bytes.fromhex(session_id)
        return base64.urlsafe_b64encode(number + self._mac(number, identity)).rstrip(b"=").decode()

    def session_id(self, token: str, identity: str) -> str | None:
        """The id of the session that a token names; None if this object has not made it for that identity."""
        try:
            data = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except (binascii.Error, UnicodeEncodeError):
            return None
        number, mac = data[:_ID_BYTES], data[_ID_BYTES:]
        if len(mac) != _MAC_BYTES or not hmac.compare_digest(mac, self._mac(number, identity)):
            return None
        return number.hex()

    def _mac(self, number: bytes, identity: str) -> bytes:
        return hmac.digest(self._key, number + identity.encode(errors="surrogatepass"), "sha256")
