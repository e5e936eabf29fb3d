"""The ledger of a batch: a file to which a line is added for each change of a clip's state, and never changed.

It is JSON Lines. Each line is on the disk before anything is done that relies on it:

    {"time": "2026-01-31T12:00:00Z", "clip": "a.mp4", "state": "started", "attempt": 1}
    {"time": ..., "clip": "a.mp4", "state": "retry", "attempt": 1, "code": "UNAVAILABLE", "error": "..."}
    {"time": ..., "clip": "a.mp4", "state": "done", "attempt": 2, "input": {"size": ..., "mtime_ns": ...,
     "sha256": "..."}, "work": "...", "outputs": ["result.jsonl"], "frames": 24, "objects": 1, "seconds": 3.1}

The last line of a clip says where it stands. A last line of the file that is torn, because the machine went down while
it was written, counts as not written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from masklet.batch.identity import Fingerprint
from masklet.errors import DataLoss

State = Literal["started", "retry", "interrupted", "done", "empty", "poisoned"]
"""Where a clip stands.

"started": it is being tracked, or was when the batch died. "retry": it failed, and is tried again. "interrupted": it
was stopped, and is done in the next run. "done": its results are written. "empty": a detector found nothing to track
in it. "poisoned": it failed, and trying again does not help, or did not.
"""
FINAL: tuple[State, ...] = ("done", "empty", "poisoned")


def _now() -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Entry:
    """A line of the ledger.

    Attributes:
        clip: The clip's name.
        state: Its state from now on.
        attempt: Which attempt to do it, from 1.
        input: The video's fingerprint, where it is final.
        work: The digest of prompts, range and options, where it is final.
        outputs: The files and folders of its results, where it is done.
        frames: Frames with results.
        objects: Objects that were tracked.
        seconds: What the attempt took.
        code: The error's status code, such as "UNAVAILABLE"; of a file that cannot be read, "OS".
        error: What went wrong.
        time: When, in UTC.
    """

    clip: str
    state: State
    attempt: int = 0
    input: Fingerprint | None = None
    work: str = ""
    outputs: tuple[str, ...] = ()
    frames: int = 0
    objects: int = 0
    seconds: float = 0.0
    code: str = ""
    error: str = ""
    time: str = field(default_factory=_now)

    def to_line(self) -> str:
        """The entry as a line of JSON; what is empty is left out."""
        found: dict[str, Any] = {"time": self.time, "clip": self.clip, "state": self.state}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name not in found and value not in (None, "", 0, ()):
                found[one.name] = value.to_dict() if isinstance(value, Fingerprint) else value
        return json.dumps(found) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """What `to_line` made; keys that are not known are skipped.

        Raises:
            ValueError: It is something else.
        """
        found = json.loads(line)
        if not isinstance(found, dict) or found.get("state") not in get_args(State):
            raise ValueError("it has no state that is known")
        known = {one.name for one in dataclasses.fields(cls)}
        values = {key: value for key, value in found.items() if key in known}
        if not isinstance(values.get("clip"), str):
            raise ValueError("it names no clip")
        if values.get("input") is not None:
            values["input"] = Fingerprint.from_dict(values["input"])
        return cls(**{**values, "outputs": tuple(values.get("outputs", ()))})


class Ledger:
    """The ledger of one run, to which threads may write. Use it as a context manager, or call `close`.

    What other shards have written into their ledgers is known, too.

    Args:
        path: The file; made if it does not exist. A torn last line is cut off.
        others: Ledgers of other shards; their files are not touched.

    Raises:
        DataLoss: A line is not one of a ledger.
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: Path, others: tuple[Path, ...] = ()) -> None:
        self.path = path
        self._lock = threading.Lock()
        length, self._last = _read(path)
        for other in others:
            self._merge(_read(other)[1])
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(self._file, length)
            os.fsync(self._file)
            sync_folder(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing more can be written."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def last(self, clip: str) -> Entry | None:
        """The last line of a clip; None where there is none."""
        with self._lock:
            return self._last.get(clip)

    def add(self, entry: Entry) -> None:
        """Write a line, and wait until it is on the disk.

        Raises:
            OSError: It cannot be written; then part of it may be in the file, and is cut off.
        """
        line = entry.to_line().encode()
        with self._lock:
            before = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, line)
                if written < len(line):
                    raise OSError(28, "No space left on device", str(self.path))
                os.fsync(self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, before)
                raise
            self._last[entry.clip] = entry

    def _merge(self, found: dict[str, Entry]) -> None:
        """Take what another ledger says: what is final counts before what is not, and later before earlier."""
        for name, entry in found.items():
            known = self._last.get(name)
            if known is None or (entry.state in FINAL, entry.time) > (known.state in FINAL, known.time):
                self._last[name] = entry


def _read(path: Path) -> tuple[int, dict[str, Entry]]:
    """How many bytes of a file are whole lines, and the last one of each clip."""
    length, found = 0, dict[str, Entry]()
    for number, line in enumerate(_whole_lines(path), 1):
        length += len(line)
        try:
            entry = Entry.from_line(line.decode())
        except (ValueError, TypeError, KeyError) as error:
            raise DataLoss(
                f"{path}: line {number} is not one of a ledger ({error}); repair or remove it, or give another folder"
            ) from None
        found[entry.clip] = entry
    return length, found


def _whole_lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
