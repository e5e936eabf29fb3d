from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from masklet.errors import ResourceExhausted
from masklet_server.scratch import ScratchFile


def open_files() -> int:
    """Temporary files without names that this process has open; other descriptors come and go with other tests."""
    return sum(os.path.realpath(entry).endswith("(deleted)") for entry in Path("/proc/self/fd").iterdir())


def test_bytes_come_back_from_wherever_they_were_put() -> None:
    file = ScratchFile("things")
    file.write(1000, b"later")
    file.write(3, memoryview(b"first"))
    assert file.read(1000, 5) == b"later"
    assert file.read(3, 5) == b"first"
    assert file.read(0, 3) == b"\0\0\0"


def test_what_was_never_written_cannot_be_read() -> None:
    with pytest.raises(EOFError, match="nothing was written at 0"):
        ScratchFile("things").read(0, 1)


def test_the_file_has_no_name_and_goes_with_its_last_reference() -> None:
    before = open_files()
    file = ScratchFile("things")
    reader = file.read
    file.write(0, b"x")
    assert open_files() == before + 1
    targets = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
    assert sum(target.endswith("(deleted)") for target in targets) >= 1
    del file
    assert reader(0, 1) == b"x", "a thread that reads keeps it"
    del reader
    assert open_files() == before


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    file = ScratchFile("the frames of the video")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ResourceExhausted, match="the server cannot hold the frames of the video: No space left"):
        file.write(0, b"x")


@pytest.mark.parametrize(("module", "call"), [(tempfile, "TemporaryFile"), (os, "dup")])
def test_no_room_for_a_file_is_named(module: object, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(module, call, refuse)
        with pytest.raises(ResourceExhausted, match="cannot hold the upload: Too many open files; try again later"):
            ScratchFile("the upload")
    assert open_files() == before


def test_short_writes_and_reads_are_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: write(fd, data[:2], offset))
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: read(fd, [buffers[0][:3]], offset))
    file = ScratchFile("things")
    file.write(5, b"0123456789")
    assert file.read(5, 10) == b"0123456789"
