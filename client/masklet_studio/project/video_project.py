"""All that is kept of one video: its operations and its masks, which belong together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from masklet_studio.project.history import History, StudioState
from masklet_studio.project.journal import Journal, Operation
from masklet_studio.project.mask_log import MaskLog, Stored
from masklet_studio.project.records import MaskRecord


class VideoProject:
    """What people have done with one video.

    Args:
        folder: Has ``journal.jsonl`` and ``masks.bin``; made if it does not exist.

    Raises:
        DataLoss: A file is damaged.
        OSError: A file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder / "journal.jsonl")
        self._log = MaskLog(folder / "masks.bin")
        # A machine that stops may keep masks of an operation that the journal has lost. No other one gets its number.
        self._history = History(self._journal.take(), self._log.newest_revision)
        self._unsaved = False

    @property
    def state(self) -> StudioState:
        """What all operations that count have made."""
        return self._history.state

    @property
    def next_object(self) -> int:
        """An id that no object of this video has had."""
        return self._history.next_object

    @property
    def next_number(self) -> int:
        """The number of the next operation, and so the revision of its masks."""
        return self._history.next_number

    @property
    def can_undo(self) -> bool:
        """Whether there is an operation to undo."""
        return self._history.undoable is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone operation to do again."""
        return self._history.redoable is not None

    def do(self, verb: str, fields: Mapping[str, Any], records: Iterable[MaskRecord] = ()) -> int:
        """Write an operation, and then the masks that it makes.

        Args:
            verb: What it does.
            fields: What it does it with, ready for JSON.
            records: Masks whose revision is `next_number`.

        Returns:
            The operation's number.

        Raises:
            OSError: It cannot be written. Nothing has changed then.
        """
        number = self.next_number
        operation: Operation = {"n": number, "at": round(time.time(), 3), "do": verb, **fields}
        before = self._journal.append(operation)
        try:
            self.store(records)
        except OSError:
            self._journal.cut_off(before)
            raise
        self._history.add(operation)
        return number

    def store(self, records: Iterable[MaskRecord]) -> None:
        """Store masks of an operation that was written before.

        Raises:
            OSError: They cannot be written.
        """
        self._log.append(records)
        self._unsaved = True

    def undo(self) -> Operation | None:
        """Undo the last operation that counts, and return it; None where there is none."""
        undone = self._history.undoable
        if undone is not None:
            self.do("undo", {"of": undone["n"]})
        return undone

    def redo(self) -> Operation | None:
        """Do the operation again that was undone last, and return it; None where there is none."""
        undone = self._history.redoable
        if undone is not None:
            self.do("redo", {"of": undone["n"]})
        return undone

    def counts(self, number: int) -> bool:
        """Whether the operation of this number is not undone."""
        return self._history.counts(number)

    # Masks

    def masks(self, object_id: int) -> dict[int, Stored]:
        """The masks of an object that count, by frame, in ascending order."""
        return dict(sorted(self._log.current(object_id, self._history.counts)))

    def mask(self, object_id: int, frame: int) -> Stored | None:
        """The mask of an object on a frame; None if there is none."""
        return self._log.find(object_id, frame, self._history.counts)

    def bytes_of(self, stored: Stored) -> bytes:
        """A mask's record, as it goes to the page."""
        return self._log.read(stored)

    def record(self, object_id: int, frame: int) -> MaskRecord | None:
        """The mask of an object on a frame; None if there is none."""
        stored = self.mask(object_id, frame)
        return None if stored is None else MaskRecord.unpack(self._log.read(stored))

    def tracked_record(self, object_id: int, frame: int) -> MaskRecord | None:
        """The newest mask of an object on a frame that tracking has made; None if there is none."""
        stored = self._log.tracked(object_id, frame, self._history.counts)
        return None if stored is None else MaskRecord.unpack(self._log.read(stored))

    def made_by(self, number: int) -> dict[int, tuple[int, int]]:
        """For each object the first and the last frame whose mask an operation has made."""
        ranges: dict[int, tuple[int, int]] = {}
        for object_id, frame in self._log.made_by(number):
            first, last = ranges.get(object_id, (frame, frame))
            ranges[object_id] = (min(first, frame), max(last, frame))
        return ranges

    # Files

    def sync(self) -> bool:
        """Have all of it survive the end of the machine; takes milliseconds. False where nothing had changed."""
        if not self._unsaved:
            return False
        self._unsaved = False
        try:
            self._log.sync()
            self._journal.sync()
        except OSError:
            self._unsaved = True
            raise
        return True

    def close(self) -> None:
        """Close the files. May be called twice."""
        self._journal.close()
        self._log.close()
