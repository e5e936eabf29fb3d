"""What the gateway and a decoding process say to each other: JSON with bytes behind it, over pipes."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

HEAD = struct.Struct("<II")
"""Bytes of the JSON, and of what follows it."""
MAX_JSON = 1 << 20
MAX_PAYLOAD = 1 << 29


def pack(message: dict[str, Any], payload: bytes = b"") -> bytes:
    """A message as the bytes that go through the pipe."""
    text = json.dumps(message).encode()
    return HEAD.pack(len(text), len(payload)) + text + payload


def lengths(head: bytes) -> tuple[int, int]:
    """The lengths that a message's first bytes tell.

    Raises:
        ValueError: They are larger than any message is.
    """
    text, payload = HEAD.unpack(head)
    if text > MAX_JSON or payload > MAX_PAYLOAD:
        raise ValueError(f"a message of {text} and {payload} bytes is larger than any")
    return text, payload


def read(file: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message in a file; None at its end."""
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    text, payload = lengths(head)
    message: dict[str, Any] = json.loads(file.read(text))
    return message, file.read(payload)
