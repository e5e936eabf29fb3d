"""A file of operations: one JSON object a line, only ever appended to.

A line that is not whole stands at the end of the file where the machine stopped while it was written. It was never
confirmed to anybody, so it is cut off when the file is opened.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from masklet.errors import DataLoss

Operation = dict[str, Any]


class Journal:
    """A file of operations that is open for appending.

    Attributes:
        path: The file.

    Args:
        path: The file; made if it does not exist.

    Raises:
        DataLoss: A line in the middle of the file is damaged.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines, whole = _read(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if os.fstat(self._file).st_size > whole:
            os.ftruncate(self._file, whole)

    def take(self) -> list[Operation]:
        """The operations that the file had when it was opened; to be called once."""
        lines, self._lines = self._lines, []
        return lines

    def append(self, operation: Operation) -> int:
        """Write an operation. Once this returns, the operation survives the end of this process.

        Returns:
            How long the file was before, for `cut_off`.

        Raises:
            OSError: The disk is full, for instance; nothing of the operation stays in the file.
        """
        return write_whole(self._file, json.dumps(operation, separators=(",", ":")).encode() + b"\n")

    def cut_off(self, length: int) -> None:
        """Take back what was appended after the file had this length."""
        os.ftruncate(self._file, length)

    def sync(self) -> None:
        """Have the file survive the end of the machine, too; takes milliseconds."""
        with contextlib.suppress(ValueError):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def write_whole(file: int, data: bytes) -> int:
    """Append all of the data to a file, or nothing.

    Returns:
        The length of the file before.

    Raises:
        OSError: It cannot be written.
    """
    start = os.fstat(file).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        os.ftruncate(file, start)
        raise
    return start


def _read(path: Path) -> tuple[list[Operation], int]:
    """The operations in a file, and how many of its bytes are whole lines."""
    if not path.exists():
        return [], 0
    operations, whole = [], 0
    for line in _lines(path):
        try:
            operation = json.loads(line)
        except ValueError:
            operation = None
        if not line.endswith(b"\n") or not isinstance(operation, dict):
            if whole + len(line) < path.stat().st_size:
                raise DataLoss(f"{path} is damaged at byte {whole}; cut the file off there to go on without the rest")
            break
        operations.append(operation)
        whole += len(line)
    return operations, whole


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file
