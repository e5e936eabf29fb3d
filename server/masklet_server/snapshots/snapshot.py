"""One session at one moment, as bytes: what it must know to go on, the memory of each of its objects, and responses.

The bytes are: a magic line with the version, the SHA-256 of all that follows, the length of a JSON header, the header,
the memories one after the other, in the header's order, and the responses. Numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from masklet.errors import DataLoss

VERSION = 1
_MAGIC = b"masklet-snapshot-"
_HASH = hashlib.sha256().digest_size


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One session at one moment.

    Attributes:
        last_frame: Index of the last frame that was tracked.
        state: Everything else that is no memory, as JSON's types: counters, prompts that wait, policies.
        banks: By object id, what `MemoryBank.dump` gave.
        responses: Those that the client may not have, in order, as the bytes of their messages.
    """

    last_frame: int
    state: Mapping[str, Any]
    banks: Mapping[int, bytes] = field(default_factory=dict)
    responses: Sequence[bytes] = ()

    def to_bytes(self) -> bytes:
        """The snapshot as bytes; equal snapshots give equal bytes."""
        header = json.dumps(
            {
                "last_frame": self.last_frame,
                "state": self.state,
                "banks": [[object_id, len(bank)] for object_id, bank in self.banks.items()],
                "responses": [len(response) for response in self.responses],
            }
        ).encode()
        body = b"".join([len(header).to_bytes(8, "little"), header, *self.banks.values(), *self.responses])
        return b"".join([_MAGIC, b"%d\n" % VERSION, hashlib.sha256(body).digest(), body])

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """The snapshot that `to_bytes` gave.

        Raises:
            DataLoss: These are not the bytes of a snapshot, bytes are missing or changed, or another version of masklet
                wrote them.
        """
        first, newline, rest = data[:64].partition(b"\n")
        if not newline or not first.startswith(_MAGIC):
            raise DataLoss("these are not the bytes of a snapshot")
        version = first.removeprefix(_MAGIC)
        if version != b"%d" % VERSION:
            raise DataLoss(
                f"the snapshot has version {version.decode('ascii', 'replace')}, this masklet reads {VERSION}"
            )
        del rest
        start = len(first) + 1
        digest, body = data[start : start + _HASH], memoryview(data)[start + _HASH :]
        if hashlib.sha256(body).digest() != digest:
            raise DataLoss("the snapshot is damaged: its bytes do not have the checksum that they had")
        return cls._read(body)

    @classmethod
    def _read(cls, body: memoryview) -> Snapshot:
        """The contents of bytes whose checksum is right, so only a fault of masklet could have made them wrong."""
        length = int.from_bytes(body[:8], "little")
        header = json.loads(bytes(body[8 : 8 + length]))
        banks, offset = {}, 8 + length
        for object_id, size in header["banks"]:
            banks[object_id] = bytes(body[offset : offset + size])
            offset += size
        responses = []
        for size in header["responses"]:
            responses.append(bytes(body[offset : offset + size]))
            offset += size
        return cls(header["last_frame"], header["state"], banks, responses)
