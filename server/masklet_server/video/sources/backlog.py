"""What a client has sent before it can be decoded, kept on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from masklet.errors import ResourceExhausted
from masklet_server.budgets.budget import Share
from masklet_server.budgets.shares import UNBOUNDED
from masklet_server.scratch import ScratchFile

# What is known of each item stays in memory, some hundred bytes.
MAX_ITEMS = 131_072
# A file is deleted when all that it holds was taken; so the files together are larger than the backlog by one at most.
_FILE_BYTES = 64 * 1024**2
# Each file takes a descriptor of the server, of which there may be a thousand. So files grow with the backlog's limit.
_MAX_FILES = 8

T = TypeVar("T")


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    item: T
    file: ScratchFile
    offset: int
    size: int


class Backlog(Generic[T]):
    """A queue of items with data. The data are in temporary files without names.

    One task adds items while another one takes them.

    Attributes:
        nbytes: Size of the data that wait.

    Args:
        max_bytes: Size of the data, at most.
        what: What the items are, for errors: "frame" or "packet".
        disk: Where the room of the files is counted.
    """

    def __init__(self, max_bytes: int, what: str, disk: Share = UNBOUNDED.disk) -> None:
        self._disk = disk
        self.nbytes = 0
        self._max_bytes = max_bytes
        self._max_file_bytes = max(_FILE_BYTES, max_bytes // _MAX_FILES)
        self._what = what
        self._items: deque[_Waiting[T]] = deque()
        self._file: ScratchFile | None = None
        self._file_bytes = 0

    def __len__(self) -> int:
        """Number of items that wait."""
        return len(self._items)

    async def append(self, item: T, data: bytes) -> None:
        """Add an item at the end.

        Raises:
            ResourceExhausted: Too much waits already, the disk is full, or the client has as much on it as it may have.
        """
        if self.nbytes + len(data) > self._max_bytes:
            raise self._full(f"{self.nbytes + len(data)} bytes, more than max_upload_bytes = {self._max_bytes}")
        if len(self) >= MAX_ITEMS:
            raise self._full(f"{len(self) + 1} messages, more than {MAX_ITEMS}")
        if self._file is None or self._file_bytes >= self._max_file_bytes:
            self._file = await asyncio.to_thread(ScratchFile, f"the {self._what} messages that wait", self._disk)
            self._file_bytes = 0
        waiting = _Waiting(item, self._file, self._file_bytes, len(data))
        self._file_bytes += len(data)
        self.nbytes += len(data)
        await asyncio.to_thread(waiting.file.write, waiting.offset, data)
        self._items.append(waiting)

    def peek(self) -> T:
        """The first item, without its data. There must be one."""
        return self._items[0].item

    async def first(self) -> tuple[T, bytes]:
        """The first item and its data; it stays there. There must be one."""
        waiting = self._items[0]
        return waiting.item, bytes(await asyncio.to_thread(waiting.file.read, waiting.offset, waiting.size))

    def drop_first(self) -> None:
        """Remove the first item and its data."""
        self.nbytes -= self._items.popleft().size
        if not self._items:
            self._file = None

    def clear(self) -> None:
        """Forget everything, and free the files."""
        self._items.clear()
        self._file = None
        self.nbytes = 0

    def _full(self, what_waits: str) -> ResourceExhausted:
        return ResourceExhausted(
            f"{self._what}: results wait for the client, and the {self._what} messages that came meanwhile are "
            f"{what_waits}; read the responses and acknowledge them (ack) while you send, or send the video in parts"
        )
