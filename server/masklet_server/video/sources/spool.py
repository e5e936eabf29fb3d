"""The temporary file that takes an upload."""

from __future__ import annotations

import asyncio
import os
from typing import IO

from masklet.errors import ResourceExhausted
from masklet_server.budgets.budget import Share
from masklet_server.budgets.shares import UNBOUNDED
from masklet_server.scratch import temporary_file


class Spool:
    """A temporary file without a name that takes an upload, up to a size.

    Attributes:
        size: Bytes that were written.

    Args:
        max_bytes: Size of the file, at most.
        disk: Where its room is counted.

    Raises:
        ResourceExhausted: There is no room for a file, or too many are open.
        Unavailable: The folder for temporary files is gone.
    """

    def __init__(self, max_bytes: int, disk: Share = UNBOUNDED.disk) -> None:
        self._disk = disk
        self._taken = 0
        self.size = 0
        self._max_bytes = max_bytes
        self._file: IO[bytes] = temporary_file("the upload")
        self._writing: asyncio.Future[None] | None = None

    def open_for_reading(self) -> int:
        """Open the file once more, to read it; the caller closes the descriptor, which has its own position."""
        return os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

    async def append(self, chunk: bytes) -> None:
        """Write at the end of the file, on another thread.

        Raises:
            ResourceExhausted: The file would become too large, the disk is full, or the client has as much on it as
                it may have.
        """
        if self.size + len(chunk) > self._max_bytes:
            raise ResourceExhausted(
                f"the upload has more than max_upload_bytes = {self._max_bytes} bytes; cut or compress the video first"
            )
        self._disk.take(len(chunk))
        self._taken += len(chunk)
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, chunk)
        try:
            await asyncio.shield(self._writing)
        except OSError as error:
            raise ResourceExhausted(f"the server cannot hold the upload: {error.strerror}; try again later") from error
        self.size += len(chunk)

    def _write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Free the file: at once, or when a write has ended that still runs on a thread."""
        if self._writing is None or self._writing.done():
            self._free()
        else:
            self._writing.add_done_callback(lambda _: self._free())

    def _free(self) -> None:
        self._file.close()
        taken, self._taken = self._taken, 0
        self._disk.give_back(taken)
