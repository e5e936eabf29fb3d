"""Results of one clip on disk: written aside, and put in their place when they are whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masklet._media.result_files import SUFFIXES
from masklet.batch.clips import ABOUT
from masklet.batch.ledger import Entry, sync_folder
from masklet.errors import FailedPrecondition, InvalidArgument
from masklet.export import FORMATS, Settings, write
from masklet.recording import Recording

PARTIAL = ".partial"
"""The folder in which results are written before they are whole."""


@dataclass(frozen=True)
class Exported:
    """An export of each clip.

    Attributes:
        format: The name of the format, one of `masklet.export.FORMATS`.
        file: The name of the file or folder in the folder of each clip.

    Raises:
        InvalidArgument: There is no such format, or the name does not go with it.
    """

    format: str
    file: str

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidArgument.of("export", f"is {self.format!r}, must be one of {', '.join(FORMATS)}")
        if Path(self.file).name != self.file or self.file in (ABOUT, "", ".", ".."):
            raise InvalidArgument.of("export", f"{self.file!r} must be the name of a file in the folder of each clip")
        FORMATS[self.format].check(Path(self.file), Settings())

    @classmethod
    def parse(cls, word: str) -> Exported:
        """Read ``FORMAT`` or ``FORMAT=FILE``.

        Raises:
            InvalidArgument: There is no such format, or the name does not go with it.
        """
        name, _, file = word.partition("=")
        if name not in FORMATS:
            raise InvalidArgument.of("export", f"is {name!r}, must be one of {', '.join(FORMATS)}")
        known = FORMATS[name]
        return cls(name, file or (name if known.folder else name + known.suffixes[0]))


@dataclass(frozen=True)
class Layout:
    """Where a batch writes.

    Attributes:
        folder: The folder of results.
        suffix: Of the file of results: ".jsonl", ".json" or ".parquet".
        exports: Further formats.
        part: What the shard is called in names of files; empty for a whole batch.

    Raises:
        InvalidArgument: There is no such suffix, or two files have one name.
    """

    folder: Path
    suffix: str = ".jsonl"
    exports: tuple[Exported, ...] = ()
    part: str = ""

    def __post_init__(self) -> None:
        if self.suffix not in SUFFIXES:
            raise InvalidArgument.of("results", f"are {self.suffix!r}, must be one of {', '.join(SUFFIXES)}")
        names = [self.result, *(export.file for export in self.exports)]
        for name in names:
            if names.count(name) > 1:
                raise InvalidArgument.of("export", f"{name} is written twice; give one another name: FORMAT=FILE")

    @property
    def result(self) -> str:
        """The name of the file of results in the folder of each clip."""
        return f"result{self.suffix}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of all that is written for a clip."""
        return tuple(sorted([self.result, *(export.file for export in self.exports)]))

    @property
    def ledger(self) -> Path:
        """The path of the ledger."""
        return self.folder / f"ledger{self.part}.jsonl"

    @property
    def poison_list(self) -> Path:
        """The path of the list of clips that failed."""
        return self.folder / f"poisoned{self.part}.jsonl"

    @property
    def _aside(self) -> Path:
        return self.folder / PARTIAL / f"part{self.part}"

    def other_ledgers(self) -> tuple[Path, ...]:
        """The ledgers of other shards, and of the whole batch."""
        return tuple(
            path for path in sorted(self.folder.glob("ledger*.jsonl")) if path != self.ledger and path.is_file()
        )

    def prepare(self) -> None:
        """Make the folder, and remove what a run that died has left half written.

        Raises:
            OSError: It cannot be written to.
        """
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)

    def clean(self) -> None:
        """Remove the folder for what is not whole."""
        shutil.rmtree(self._aside, ignore_errors=True)
        with contextlib.suppress(OSError):  # other shards work there
            self._aside.parent.rmdir()

    def place(self, clip: str) -> Path:
        """The folder of a clip."""
        return self.folder / clip

    def about(self, clip: str) -> Entry | None:
        """What the folder of a clip says of its results; None where there are none."""
        path = self.place(clip) / ABOUT
        if not path.exists():
            return None
        try:
            return Entry.from_line(path.read_text("utf-8"))
        except (ValueError, TypeError, KeyError):
            return None

    def load(self, entry: Entry) -> Recording | None:
        """The results that a clip's folder has, in whichever form; None where there are none."""
        for name in entry.outputs:
            if Path(name).stem == "result" and Path(name).suffix in SUFFIXES:
                return Recording.load(self.place(entry.clip) / name)
        return None

    def publish(self, recording: Recording, entry: Entry, number: int) -> None:
        """Write the results of a clip, and put them in their place, all at the same time.

        Args:
            recording: The results.
            entry: What is to be said of them, in the folder itself.
            number: Tells this clip's folder for what is not whole from others.

        Raises:
            MaskletError: An export is not possible, or another folder is in the way.
            OSError: Something cannot be written.
        """
        final, aside, old = self.place(entry.clip), self._aside / str(number), self._aside / f"{number}-old"
        if final.exists() and not (final / ABOUT).exists():
            raise FailedPrecondition(f"{final} exists and holds no results of a batch; move it away")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            recording.save(aside / self.result)
            for export in self.exports:
                write(recording, export.format, aside / export.file)
            (aside / ABOUT).write_text(entry.to_line(), "utf-8")
            _sync(aside)
            self._make_parents(final)
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
                final.rename(old)
            aside.rename(final)
            sync_folder(final.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)

    def remove(self, clip: str, number: int) -> None:
        """Remove the results of a clip, if there are any: they are of other prompts.

        Args:
            clip: The clip.
            number: As for `publish`.

        Raises:
            OSError: They cannot be removed.
        """
        if (self.place(clip) / ABOUT).exists():
            old = self._aside / f"{number}-old"
            self.place(clip).rename(old)  # at once, so that no half of it stays
            shutil.rmtree(old, ignore_errors=True)

    def _make_parents(self, final: Path) -> None:
        parent = final.parent
        parent.mkdir(parents=True, exist_ok=True)
        while parent != self.folder:
            parent = parent.parent
            sync_folder(parent)

    def write_poison_list(self, entries: Sequence[Entry]) -> None:
        """Write which clips failed, and why; no file where none did."""
        if not entries:
            self.poison_list.unlink(missing_ok=True)
            return
        lines: list[dict[str, Any]] = [
            {"clip": one.clip, "code": one.code, "error": one.error, "attempts": one.attempt, "time": one.time}
            for one in entries
        ]
        aside = self.poison_list.with_name(f".{self.poison_list.name}")
        aside.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        aside.replace(self.poison_list)


def _sync(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(parent) / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(parent))
