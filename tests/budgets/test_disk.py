"""Room for temporary files, and the files that take it."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from masklet.errors import ResourceExhausted, Unavailable
from masklet_server.budgets.budget import Bounds, Share
from masklet_server.budgets.disk import DiskBudget
from masklet_server.scratch import ScratchFile
from masklet_server.video.sources.backlog import Backlog
from masklet_server.video.sources.spool import Spool

MIB = 1024**2


def share(per_client: int) -> tuple[DiskBudget, Share]:
    budget = DiskBudget(Bounds(0, per_client))
    return budget, Share(budget, "a")


def disk_with(free: int, total: int) -> SimpleNamespace:
    return SimpleNamespace(f_bavail=free, f_blocks=total, f_frsize=1)


def test_a_floor_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = DiskBudget(Bounds(), min_free=100)
    monkeypatch.setattr(os, "statvfs", lambda _: disk_with(free=150, total=10_000))
    budget.take("a", 50)
    with pytest.raises(ResourceExhausted, match=r"less than 100 bytes would stay free on the disk \(min_free"):
        budget.take("a", 9 * MIB)
    assert budget.used == 50


def test_on_a_small_disk_a_tenth_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: disk_with(free=50 * MIB, total=100 * MIB))
    DiskBudget(Bounds(), min_free=512 * MIB).take("a", 39 * MIB)
    with pytest.raises(ResourceExhausted):
        DiskBudget(Bounds(), min_free=512 * MIB).take("a", 41 * MIB)


def test_a_file_system_without_a_size_has_no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: disk_with(free=0, total=0))
    DiskBudget(Bounds(), min_free=512 * MIB).take("a", 41 * MIB)


def test_a_scratch_file_takes_what_it_grows_by_and_gives_it_back() -> None:
    budget, mine = share(100)
    file = ScratchFile("tests", mine)
    file.write(0, bytes(60))
    file.write(10, bytes(60))
    file.write(0, bytes(20))
    assert budget.used == 70
    with pytest.raises(ResourceExhausted, match="max_disk_bytes_per_client"):
        file.write(90, bytes(20))
    assert budget.used == 70
    del file
    assert budget.used == 0


async def test_uploads_and_what_waits_take_room() -> None:
    budget, mine = share(100)
    spool, backlog = Spool(1000, mine), Backlog[int](1000, "frame", mine)
    await spool.append(bytes(50))
    await backlog.append(1, bytes(50))
    with pytest.raises(ResourceExhausted, match="max_disk_bytes_per_client"):
        await spool.append(b"x")
    with pytest.raises(ResourceExhausted, match="max_disk_bytes_per_client"):
        await backlog.append(2, b"x")
    spool.close()
    backlog.clear()
    await asyncio.sleep(0.1)
    gc.collect()  # the errors refer to the file, and the event loop to the errors
    assert budget.used == 0


def test_a_folder_for_temporary_files_that_is_gone_is_named_to_the_operator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(Unavailable, match="its folder for temporary files is missing") as caught:
        ScratchFile("tests")
    assert str(tmp_path) not in caught.value.message, "paths are no client's business"
    assert str(tmp_path / "gone") in caplog.text
