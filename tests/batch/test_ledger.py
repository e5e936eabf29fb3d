"""The ledger: what is written is found again, whatever became of the last write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from masklet.batch import Entry, Fingerprint
from masklet.batch.ledger import Ledger
from masklet.errors import DataLoss

INPUT = Fingerprint(10, 20, "ab")
DONE = Entry("a.mp4", "done", 2, INPUT, "work", ("result.jsonl",), 24, 1, 3.5)


def test_entries_are_lines_and_come_back() -> None:
    for entry in (DONE, Entry("a/b.mp4", "started", 1), Entry("ü.mp4", "poisoned", 3, code="OS", error="no\nfile")):
        line = entry.to_line()
        assert line.count("\n") == 1
        assert Entry.from_line(line) == entry
    assert '"frames"' not in Entry("a", "started").to_line()


def test_keys_of_newer_versions_are_skipped() -> None:
    assert Entry.from_line('{"clip": "a", "state": "done", "time": "t", "later": 1}') == Entry("a", "done", time="t")


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"clip": "a", "state": "dreaming"}', '{"state": "done"}', "{"])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Entry.from_line(line)


def test_the_last_line_of_a_clip_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        assert ledger.last("a.mp4") is None
        ledger.add(Entry("a.mp4", "started", 1))
        ledger.add(DONE)
        ledger.add(Entry("b.mp4", "started", 1))
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        assert ledger.last("a.mp4") == DONE
        assert ledger.last("b.mp4") is not None
        ledger.add(Entry("a.mp4", "started", 1))  # again, because the video has changed
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        found = ledger.last("a.mp4")
        assert found is not None
        assert found.state == "started"


def test_whatever_is_left_of_the_last_line_the_rest_is_there(tmp_path: Path) -> None:
    """The machine goes down at each byte of a write."""
    path = tmp_path / "ledger.jsonl"
    before = Entry("a.mp4", "started", 1).to_line().encode()
    line = DONE.to_line().encode()
    for length in range(len(line)):
        path.write_bytes(before + line[:length])
        with Ledger(path) as ledger:
            found = ledger.last("a.mp4")
            assert found is not None
            assert found.state == "started", length
            ledger.add(DONE)
        assert path.read_bytes() == before + line


def test_a_line_in_the_middle_that_is_wrong_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(DONE.to_line() + "nonsense\n" + DONE.to_line())
    with pytest.raises(DataLoss, match=r"ledger\.jsonl: line 2 is not one of a ledger"):
        Ledger(path)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.add(DONE)
        whole = path.read_bytes()
        write = os.write
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", lambda file, data: write(file, data[:7]))  # as on a disk that is full
            with pytest.raises(OSError, match="No space left") as failure:
                ledger.add(Entry("b.mp4", "started", 1))
            assert failure.value.errno == errno.ENOSPC
        assert path.read_bytes() == whole
        assert ledger.last("b.mp4") is None


def test_every_line_is_on_the_disk_before_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def counted(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        fsync(file)

    monkeypatch.setattr(os, "fsync", counted)
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        for _ in range(3):
            ledger.add(DONE)
            assert synced[-1] == (tmp_path / "ledger.jsonl").stat().st_size


def test_other_shards_are_known_and_not_touched(tmp_path: Path) -> None:
    other = tmp_path / "ledger-1-of-2.jsonl"
    other.write_text(DONE.to_line() + Entry("b.mp4", "started", 1).to_line() + '{"torn')
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.add(Entry("a.mp4", "started", 1))
    with Ledger(tmp_path / "ledger.jsonl", (other,)) as ledger:
        assert ledger.last("a.mp4") == DONE  # what is done counts before what was only begun
        assert other.read_text().endswith('{"torn')
