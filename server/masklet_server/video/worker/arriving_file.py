"""An upload as a file that may be read while it is still arriving. Runs in the decoding process."""

from __future__ import annotations

import os
from collections.abc import Callable


class ArrivingFile:
    """The file that FFmpeg reads; `read` waits for bytes that have not arrived yet.

    Containers with their index at the end need no special case: FFmpeg seeks there, and `read` waits.

    Attributes:
        arrived: Bytes that have arrived.
        complete: No more bytes will arrive.

    Args:
        descriptor: Of the file.
        wait: Waits until `arrived` or `complete` has changed.
    """

    def __init__(self, descriptor: int, wait: Callable[[], None]) -> None:
        self.arrived = 0
        self.complete = False
        self._descriptor = descriptor
        self._wait = wait
        self._position = 0

    def wait_for_start(self, count: int) -> bytes:
        """Wait for the first `count` bytes, and read them; there are fewer if the file is shorter."""
        while self.arrived < count and not self.complete:
            self._wait()
        return self.peek(0, count)

    def wait_for_end(self) -> None:
        """Wait until the whole file is here."""
        while not self.complete:
            self._wait()

    def read(self, count: int = -1) -> bytes:
        """Read up to `count` bytes, at least one, except at the end; or all of the rest, if `count` is negative."""
        if count < 0:
            self.wait_for_end()
            count = self.arrived
        while self._position >= self.arrived and not self.complete:
            self._wait()
        available = max(0, self.arrived - self._position)
        data = os.pread(self._descriptor, min(count, available), self._position)
        self._position += len(data)
        return data

    def peek(self, offset: int, count: int) -> bytes:
        """Read up to `count` bytes at an offset, without waiting, and without moving the position."""
        return os.pread(self._descriptor, max(0, min(count, self.arrived - offset)), offset)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, and return it. Returns -1, which means "not known" to FFmpeg, while the end is not known.

        FFmpeg asks every file for its size when it looks at the streams, but mostly does not need it. Waiting here
        would delay the first frame of every clip to the end of its upload. Who needs the size calls `wait_for_end`
        before.
        """
        if whence == os.SEEK_END:
            if not self.complete:
                return -1
            offset += self.arrived
        elif whence == os.SEEK_CUR:
            offset += self._position
        if offset < 0:
            return -1
        self._position = offset
        return offset

    def tell(self) -> int:
        """The position at which the next read begins."""
        return self._position

    def readable(self) -> bool:
        """Whether the file can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be moved: always."""
        return True
