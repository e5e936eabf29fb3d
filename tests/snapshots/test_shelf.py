"""Who may write a session's snapshots, which of them counts, and how they go away."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from masklet.errors import Aborted, InvalidArgument
from masklet_server.snapshots.blobs import DirectoryBlobs
from masklet_server.snapshots.shelf import WATCH_SECONDS, SnapshotShelf
from masklet_server.snapshots.snapshot import VERSION, Snapshot

SESSION = "0123abcd"


@pytest.fixture
def shelf(tmp_path: Path) -> SnapshotShelf:
    return SnapshotShelf(DirectoryBlobs(tmp_path))


def at(frame: int) -> Snapshot:
    return Snapshot(frame, {}, {1: b"bank"})


def snapshots_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.snapshot"))


async def last_frame(shelf: SnapshotShelf) -> int | None:
    _, snapshot = await shelf.newest(SESSION)
    return None if snapshot is None else snapshot.last_frame


async def test_the_newest_snapshot_counts_and_two_are_kept(shelf: SnapshotShelf, tmp_path: Path) -> None:
    assert await shelf.newest(SESSION) == (0, None)
    await shelf.claim(SESSION, 1)
    for number in range(5):
        await shelf.put(SESSION, 1, number, at(64 * number))
    epoch, snapshot = await shelf.newest(SESSION)
    assert (epoch, snapshot is not None and snapshot.last_frame) == (1, 256)
    assert len(snapshots_in(tmp_path)) == 2


async def test_of_servers_that_claim_at_once_one_goes_on(shelf: SnapshotShelf) -> None:
    await shelf.claim(SESSION, 1)
    outcomes = await asyncio.gather(*(shelf.claim(SESSION, 2) for _ in range(5)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Aborted) for outcome in outcomes) == 4


async def test_a_server_that_was_cut_off_is_told_and_changes_nothing(shelf: SnapshotShelf) -> None:
    await shelf.claim(SESSION, 1)
    await shelf.put(SESSION, 1, 0, at(10))
    await shelf.claim(SESSION, 2)
    assert await last_frame(shelf) == 10, "the new server begins with the old one's last snapshot"
    await shelf.put(SESSION, 2, 0, at(12))
    with pytest.raises(Aborted, match="goes on at another server, in epoch 2; this one was 1"):
        await shelf.put(SESSION, 1, 1, at(99))
    assert await last_frame(shelf) == 12
    with pytest.raises(Aborted):
        await shelf.claim(SESSION, 1)


async def test_what_earlier_epochs_left_is_deleted_when_two_newer_ones_are_there(
    shelf: SnapshotShelf, tmp_path: Path
) -> None:
    for epoch in (1, 2):
        await shelf.claim(SESSION, epoch)
        for number in range(2):
            await shelf.put(SESSION, epoch, number, at(number))
    assert {path.parent.name for path in snapshots_in(tmp_path)} == {"00000002"}


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
async def test_a_damaged_snapshot_is_passed_over(
    shelf: SnapshotShelf, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    await shelf.claim(SESSION, 1)
    await shelf.put(SESSION, 1, 0, at(10))
    await shelf.put(SESSION, 1, 1, at(20))
    last = snapshots_in(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-1] if damage is None else damage)
    assert await last_frame(shelf) == 10
    assert "a snapshot of epoch 1 is passed over" in caplog.text


@pytest.mark.parametrize("version", ["0", "2", "99"])
async def test_one_of_another_version_is_passed_over_with_a_line_in_the_log(
    shelf: SnapshotShelf, tmp_path: Path, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an update was taken back: what the newer server has written is not read."""
    await shelf.claim(SESSION, 1)
    await shelf.put(SESSION, 1, 0, at(10))
    await shelf.put(SESSION, 1, 1, at(20))
    last = snapshots_in(tmp_path)[-1]
    last.write_bytes(b"masklet-snapshot-%s\n" % version.encode() + b"whatever that version writes")
    assert await last_frame(shelf) == 10
    told = f"a snapshot of epoch 1 is passed over: the snapshot has version {version}, this masklet reads {VERSION}"
    assert caplog.text.count(told) == 1


async def test_a_session_is_dropped_and_others_stay(shelf: SnapshotShelf) -> None:
    for session in (SESSION, "ffff"):
        await shelf.claim(session, 1)
        await shelf.put(session, 1, 0, at(1))
    await shelf.drop(SESSION)
    assert await shelf.newest(SESSION) == (0, None)
    assert (await shelf.newest("ffff"))[0] == 1


def age(folder: Path, seconds: float) -> None:
    """Let files look as old as that."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


class Clock:
    """Goes when it is told to."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


async def test_old_sessions_expire(tmp_path: Path) -> None:
    clock = Clock()
    shelf = SnapshotShelf(DirectoryBlobs(tmp_path), clock)
    for session in (SESSION, "ffff"):
        await shelf.claim(session, 1)
        await shelf.put(session, 1, 0, at(1))
    age(tmp_path / "sessions" / SESSION, 3600)
    assert await shelf.expire(1800) == 0, "it may be the clock that is wrong"
    clock.now += WATCH_SECONDS
    assert await shelf.expire(1800) == 1
    assert await shelf.newest(SESSION) == (0, None)
    assert await shelf.expire(1800) == 0
    assert (await shelf.newest("ffff"))[0] == 1


async def test_a_clock_that_jumps_deletes_nothing_of_another_servers_session(tmp_path: Path) -> None:
    clock = Clock()
    its_server, other = SnapshotShelf(DirectoryBlobs(tmp_path)), SnapshotShelf(DirectoryBlobs(tmp_path), clock)
    await its_server.claim(SESSION, 1)
    for number in range(4):
        await its_server.put(SESSION, 1, number, at(number))
        age(tmp_path / "sessions", 10 * 365 * 86_400)
        assert await other.expire(1800) == 0
        clock.now += WATCH_SECONDS - 1
    assert await last_frame(its_server) == 3
    clock.now += WATCH_SECONDS
    assert await other.expire(1800, keep={SESSION}) == 0
    assert await other.expire(1800) == 1, "nothing has come since"


@pytest.mark.parametrize("session", ["", "../up", "0123/..", "Z"])
async def test_only_ids_of_sessions_are_names(shelf: SnapshotShelf, session: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the id of a session"):
        await shelf.claim(session, 1)
