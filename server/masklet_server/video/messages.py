"""How server and decoding process talk: JSON lines both ways over two pipes, frames in shared memory beside them.

To the process:

- ``setup``: `mode`, `image_size`, `slots`, `slot_bytes`, `limits`; first and once. Of a clip that is read once more
  `again`: `size`, the bytes that there are; `seek`, where to look for a key frame, and `since`, the time of the first
  frame wanted, or, where `seek` is null, `skip`, the frames before it.
- ``arrived``: `size` bytes of the upload are in the spool by now.
- ``end``: nothing more will come.
- ``free``: the oldest slot in use was copied.
- ``picture``: `format`, `height`, `width`, `size`, `index`; `size` bytes follow the line.
- ``codec``: `name`, `is_fragment`, `size`; `size` bytes of extradata follow. Before the first packet.
- ``packet``: `index`, `size`; `size` bytes follow the line.

From the process:

- ``info``: the fields of `VideoInfo`, and `time_base`; once, before the first frame.
- ``frame``: `slot`, `pts`, `height`, `width`; but for single pictures, `decode_seconds`; of clips, `checksum` (CRC-32
  of the pixels). Slots are used in turn.
- ``taken``: `index`; the packet was decoded. The `pts` of frames that packets give are the indices of these.
- ``end``: no more frames.
- ``error``: `kind` (a class of masklet.errors), `message`, `field` (or "").

The decoding process imports this module: keep it free of heavy imports.
"""

from __future__ import annotations

import json
from typing import IO, Any

Message = dict[str, Any]

FORK = b"fork"  # what the fork server is told


class Refusal(Exception):  # noqa: N818 - it is a verdict on the input, not a fault of the program
    """What the decoding process says instead of raising one of masklet.errors, which it does not import.

    Attributes:
        kind: Name of a class of masklet.errors.
        message: Names the cause and, where there is one, the fix.
        field: The field of the request at fault, for InvalidArgument.
    """

    def __init__(self, kind: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field


def encode(message_type: str, **fields: Any) -> bytes:
    """One line."""
    return json.dumps({"type": message_type, **fields}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line.

    Raises:
        ValueError: It is none.
    """
    message = json.loads(line)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ValueError("a message must be an object with a type")
    return message


class Channel:
    """Either end of the pipes, blocking."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def send(self, message_type: str, payload: bytes = b"", **fields: Any) -> None:
        """Write one message, and the bytes that follow it.

        Raises:
            BrokenPipeError: The other side is gone.
        """
        self._outgoing.write(encode(message_type, **fields))
        if payload:
            self._outgoing.write(payload)
        self._outgoing.flush()

    def receive(self) -> Message:
        """Wait for one message.

        Raises:
            EOFError: The other side is gone.
            ValueError: It sent something else.
        """
        line = self._incoming.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the other side is gone")
        return decode(line)

    def receive_bytes(self, count: int) -> bytes:
        """Wait for the bytes that follow a message.

        Raises:
            EOFError: The other side is gone.
        """
        data = self._incoming.read(count)
        if len(data) != count:
            raise EOFError("the other side is gone")
        return data
