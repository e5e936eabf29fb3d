"""Temporary files for what is too large for a session's memory."""

from __future__ import annotations

import os
import tempfile
from typing import IO

from masklet.errors import ResourceExhausted


def temporary_file(holds: str) -> IO[bytes]:
    """An open temporary file without a name, and without a buffer.

    Args:
        holds: What the file will hold, for the error.

    Raises:
        ResourceExhausted: There is no room for a file, or too many are open.
    """
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:
        raise _cannot_hold(holds, error) from error


class ScratchFile:
    """A temporary file without a name, read and written at any offset and from any thread.

    It is closed, and its space freed, as soon as nothing refers to it any more. So a thread that is reading when its
    session ends can finish.

    Args:
        holds: What the file holds, for the error if the disk is full.

    Raises:
        ResourceExhausted: There is no room for a file, or too many are open.
    """

    def __init__(self, holds: str) -> None:
        self._holds = holds
        with temporary_file(holds) as file:
            try:
                self._descriptor = os.dup(file.fileno())
            except OSError as error:
                raise _cannot_hold(holds, error) from error

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
            raise _cannot_hold(self._holds, error) from error

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


def _cannot_hold(holds: str, error: OSError) -> ResourceExhausted:
    return ResourceExhausted(f"the server cannot hold {holds}: {error.strerror}; try again later")
