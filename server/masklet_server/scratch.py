"""Temporary files for what is too large for a session's memory."""

from __future__ import annotations

import os
import tempfile

from masklet.errors import ResourceExhausted


class ScratchFile:
    """A temporary file without a name, read and written at any offset and from any thread.

    It is closed, and its space freed, as soon as nothing refers to it any more. So a thread that is reading when its
    session ends can finish.

    Args:
        holds: What the file holds, for the error if the disk is full.
    """

    def __init__(self, holds: str) -> None:
        self._holds = holds
        with tempfile.TemporaryFile(buffering=0) as file:
            self._descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of the data at an offset, in bytes from the start of the file.

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
        """Read bytes at an offset; all of them must have been written before.

        Raises:
            EOFError: Nothing was written there.
        """
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            count = os.preadv(self._descriptor, [rest], offset)
            if count == 0:
                raise EOFError(f"nothing was written at {offset}")
            rest, offset = rest[count:], offset + count
        return data
