"""Temporary files for what is too large for a session's memory."""

from __future__ import annotations

import logging
import os
import tempfile
from typing import IO

from masklet.errors import ResourceExhausted, Unavailable
from masklet_server.budgets.budget import Share
from masklet_server.budgets.shares import UNBOUNDED

logger = logging.getLogger(__name__)


def temporary_file(holds: str) -> IO[bytes]:
    """An open temporary file without a name, and without a buffer.

    Args:
        holds: What the file will hold, for the error.

    Raises:
        ResourceExhausted: There is no room for a file, or too many are open.
        Unavailable: The folder for temporary files is gone, or nothing may be written there.
    """
    try:
        return tempfile.TemporaryFile(buffering=0)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        logger.error(
            "no temporary file can be made in %s: %s; make the folder again, or start the server with another TMPDIR",
            tempfile.gettempdir(),
            error.strerror,
        )
        raise Unavailable(
            f"the server cannot hold {holds}, because its folder for temporary files is missing; its operator must "
            "make it again",
            retry_after_seconds=30.0,
        ) from error
    except OSError as error:
        raise _cannot_hold(holds, error) from error


class ScratchFile:
    """A temporary file without a name, read and written at any offset and from any thread.

    It is closed, and its space freed, as soon as nothing refers to it any more. So a thread that is reading when its
    session ends can finish.

    Args:
        holds: What the file holds, for the error if the disk is full.
        disk: Where its room is counted.

    Raises:
        ResourceExhausted: There is no room for a file, or too many are open.
        Unavailable: The folder for temporary files is gone.
    """

    def __init__(self, holds: str, disk: Share = UNBOUNDED.disk) -> None:
        self._holds = holds
        self._disk = disk
        self._size = 0
        with temporary_file(holds) as file:
            try:
                self._descriptor = os.dup(file.fileno())
            except OSError as error:
                raise _cannot_hold(holds, error) from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
            self._disk.give_back(self._size)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of the data at an offset, in bytes from the start of the file.

        Raises:
            ResourceExhausted: The disk is full, or the client has as much on it as it may have.
        """
        rest = memoryview(data)
        more = offset + len(rest) - self._size
        if more > 0:
            self._disk.take(more)
            self._size += more
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
