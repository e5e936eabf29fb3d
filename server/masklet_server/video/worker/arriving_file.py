"""An upload as a file that may be read while it is still arriving. Runs in the decoding process."""

from __future__ import annotations

import os
from collections.abc import Callable


class ArrivingFile:
    """What FFmpeg reads: `read` waits for bytes that have not arrived yet.

    There is no case for containers whose index is at the end: FFmpeg seeks there, and the read waits.
    """

    def __init__(self, descriptor: int, wait: Callable[[], None]) -> None:
        """Over an open file.

        Args:
            descriptor: The spool.
            wait: Returns when `arrived` or `complete` was changed.
        """
        self.arrived = 0
        self.complete = False
        self._descriptor = descriptor
        self._wait = wait
        self._position = 0

    def wait_for_start(self) -> bool:
        """Wait for the first byte; False if there is none."""
        while not self.arrived and not self.complete:
            self._wait()
        return self.arrived > 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, at least one before the end."""
        while self._position >= self.arrived and not self.complete:
            self._wait()
        available = max(0, self.arrived - self._position)
        data = os.pread(self._descriptor, min(count, available), self._position)
        self._position += len(data)
        return data

    def peek(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes of what has arrived, from anywhere; neither waits nor moves."""
        return os.pread(self._descriptor, max(0, min(count, self.arrived - offset)), offset)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; -1, which FFmpeg takes as "not known", if asked for the end while it is not known.

        FFmpeg asks every file for its size when it looks at the streams, and does without if it must. Waiting here
        would put off the first frame of every clip to the end of its upload.
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
        """Where the next read begins."""
        return self._position

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True
