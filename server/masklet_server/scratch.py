"""Temporary files for what a session cannot hold in memory."""

from __future__ import annotations

import os
import tempfile

from masklet.errors import ResourceExhausted


class ScratchFile:
    """A file without a name, read and written at any place and from any thread.

    It is closed, and its space is free, as soon as nothing refers to it any longer: a thread that is in the middle of
    a read when its session ends keeps it that long.

    Args:
        holds: What it holds, for the error where the disk is full.
    """

    def __init__(self, holds: str) -> None:
        self._holds = holds
        with tempfile.TemporaryFile(buffering=0) as file:
            self._descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of it there.

        Raises:
            ResourceExhausted: The disk is full.
        """
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            raise ResourceExhausted(f"the server cannot hold {self._holds}: {error.strerror}") from error

    def read(self, offset: int, size: int) -> bytearray:
        """The bytes there, all of which must have been written."""
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            count = os.preadv(self._descriptor, [rest], offset)
            if count == 0:
                raise EOFError(f"nothing was written at {offset}")
            rest, offset = rest[count:], offset + count
        return data
