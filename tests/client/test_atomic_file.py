"""Files that appear when they are whole: what is at their place before."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tests.support.recordings import recording


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("\u00fc" * 125 + ".json")
    recording().save(path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_pipes_and_devices_are_written_to_and_stay(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    recording().save(pipe)
    reader.join(20)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    recording().save(tmp_path / "file.jsonl")
    assert read == [(tmp_path / "file.jsonl").read_text()]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        recording().save(tmp_path / "gone" / "r.json")
    assert raised.value.filename == str(tmp_path / "gone" / "r.json")
