"""A file of masks, only ever appended to, and an index of it in memory.

The file is a series of records (`records`), each followed by the CRC-32 of its bytes as four bytes, little endian. A
mask is never changed: a newer record of the same object on the same frame takes its place, and the older one comes back
when the operation that made the newer one is undone.
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from masklet_studio.project.journal import write_whole
from masklet_studio.project.records import ABSENT, EDITED, HEAD, PROMPTED, VERSION, MaskRecord

_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a mask is, and what the timeline shows of it.

    Attributes:
        revision: The operation that made it.
        offset: Where the record begins in the file.
        length: Bytes of the record.
        flags: As in the record.
        iou: As in the record.
        area: As in the record.
    """

    revision: int
    offset: int
    length: int
    flags: int
    iou: float
    area: int


class MaskLog:
    """The masks of one video.

    Args:
        path: The file; made if it does not exist. What is not whole at its end is cut off, and kept in a file beside it
            (``.cut``): if a record in the middle is damaged, that is all that comes after it.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._masks: dict[int, dict[int, list[Stored]]] = {}  # by object and frame, the newest one last
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        whole = self._index(path)
        if os.fstat(self._file).st_size > whole:
            with path.open("rb") as damaged, path.with_suffix(".cut").open("wb") as cut:
                damaged.seek(whole)
                shutil.copyfileobj(damaged, cut)
            os.ftruncate(self._file, whole)
        self._end = whole

    def _index(self, path: Path) -> int:
        end = 0
        with path.open("rb") as file:
            while len(head := file.read(HEAD.size)) == HEAD.size and head[0] == VERSION:
                length = HEAD.unpack(head)[-1]
                rest = file.read(length + _CRC.size)
                if len(rest) < length + _CRC.size:
                    break
                data = head + rest[:length]
                if zlib.crc32(data) != _CRC.unpack(rest[length:])[0]:
                    break
                self._add(MaskRecord.unpack(data), end, len(data))
                end += len(data) + _CRC.size
        return end

    def _add(self, record: MaskRecord, offset: int, length: int) -> None:
        stored = Stored(record.revision, offset, length, record.flags, record.iou, record.area)
        versions = self._masks.setdefault(record.object_id, {}).setdefault(record.frame, [])
        if versions and versions[-1].revision == record.revision:
            versions.pop()  # made twice by the same operation
        versions.append(stored)

    def append(self, records: Iterable[MaskRecord]) -> None:
        """Store masks, in one write.

        Raises:
            OSError: They cannot be written; none of them is stored then.
        """
        found = [(record, record.pack()) for record in records]
        write_whole(self._file, b"".join(data + _CRC.pack(zlib.crc32(data)) for _, data in found))
        for record, data in found:
            self._add(record, self._end, len(data))
            self._end += len(data) + _CRC.size

    def read(self, stored: Stored) -> bytes:
        """A record's bytes, as they go to the page."""
        return os.pread(self._file, stored.length, stored.offset)

    def current(self, object_id: int, holds: Callable[[int], bool]) -> Iterator[tuple[int, Stored]]:
        """The masks of an object that count, by frame, in no order.

        Args:
            object_id: The object.
            holds: Whether the operation of this number is not undone.
        """
        for frame, versions in self._masks.get(object_id, {}).items():
            found = _valid(versions, holds)
            if found is not None:
                yield frame, found

    def find(self, object_id: int, frame: int, holds: Callable[[int], bool]) -> Stored | None:
        """The mask of an object on a frame that counts; None if there is none. Arguments are as of `current`."""
        return _valid(self._masks.get(object_id, {}).get(frame, []), holds)

    def tracked(self, object_id: int, frame: int, holds: Callable[[int], bool]) -> Stored | None:
        """The newest mask of an object on a frame that tracking has made, not a person; arguments as of `current`."""
        for stored in reversed(self._masks.get(object_id, {}).get(frame, [])):
            if holds(stored.revision) and not stored.flags & (PROMPTED | EDITED | ABSENT):
                return stored
        return None

    def made_by(self, revision: int) -> Iterator[tuple[int, int]]:
        """Object and frame of each mask that an operation has made."""
        for object_id, frames in self._masks.items():
            for frame, versions in frames.items():
                if any(stored.revision == revision for stored in versions):
                    yield object_id, frame

    @property
    def newest_revision(self) -> int:
        """The highest revision of a mask in the file; 0 where there is none."""
        made = (versions for frames in self._masks.values() for versions in frames.values())
        return max((stored.revision for versions in made for stored in versions), default=0)

    @property
    def size(self) -> int:
        """The number of bytes in the file."""
        return self._end

    def sync(self) -> None:
        """Have the file survive the end of the machine, too."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _valid(versions: list[Stored], holds: Callable[[int], bool]) -> Stored | None:
    for stored in reversed(versions):
        if holds(stored.revision):
            return None if stored.flags & ABSENT else stored
    return None
