"""Stores of bytes: a folder, and object stores (obstore's own in memory, and an S3 server if moto is installed)."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from masklet.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from masklet_server.snapshots.blobs import BlobStore, DirectoryBlobs
from masklet_server.snapshots.places import open_blobs
from tests.support.object_store import MOTO, environment, s3_server

HAS_OBSTORE = importlib.util.find_spec("obstore") is not None
needs_obstore = pytest.mark.skipif(
    not HAS_OBSTORE, reason="obstore is not installed: pip install 'masklet[object-store]'"
)
needs_moto = pytest.mark.skipif(MOTO is None, reason="moto_server is not on the PATH: pip install 'moto[server]'")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server of this machine, with a bucket named snapshots."""
    with s3_server() as address:
        yield address


@pytest.fixture(
    params=[
        "folder",
        pytest.param("memory", marks=needs_obstore),
        pytest.param("s3", marks=[needs_obstore, needs_moto, pytest.mark.slow]),
    ]
)
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    if request.param == "folder":
        return DirectoryBlobs(tmp_path / "state")
    if request.param == "memory":
        from obstore.store import MemoryStore

        from masklet_server.snapshots.object_blobs import ObjectBlobs

        return ObjectBlobs(MemoryStore(), "memory")
    for name, value in environment(request.getfixturevalue("s3")).items():
        monkeypatch.setenv(name, value)
    return open_blobs(f"s3://snapshots/{tmp_path.name}")


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_bytes_come_back_and_can_be_replaced(blobs: BlobStore) -> None:
    assert await blobs.get("a/b") is None
    await blobs.put("a/b", b"one")
    await blobs.put("a/b", b"two")
    assert await blobs.get("a/b") == b"two"


async def test_one_of_many_creates(blobs: BlobStore) -> None:
    won = await asyncio.gather(*(blobs.create("a/claim", b"%d" % number) for number in range(8)))
    assert won.count(True) == 1
    assert await blobs.get("a/claim") == b"%d" % won.index(True)


async def test_names_are_listed_with_size_and_age(blobs: BlobStore) -> None:
    for name in ("x/2/b", "x/1/a", "xy/3", "z"):
        await blobs.put(name, b"12345")
    assert [info.name for info in await blobs.names("x")] == ["x/1/a", "x/2/b"]
    assert {info.size for info in await blobs.names("x")} == {5}
    assert all(0 <= info.age_seconds < 60 for info in await blobs.names("x"))
    assert await blobs.names("nothing") == []


async def test_deleting_twice_does_no_harm(blobs: BlobStore) -> None:
    await blobs.put("a/b/c", b"")
    await blobs.put("a/d", b"")
    await blobs.delete(["a/b/c", "a/none"])
    await blobs.delete(["a/b/c"])
    assert [info.name for info in await blobs.names("a")] == ["a/d"]


async def test_an_empty_folder_goes_with_its_last_file(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    await blobs.put("a/b/c", b"")
    await blobs.delete(["a/b/c"])
    assert left_in(tmp_path) == []


async def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)

    async def come_and_go(number: int) -> None:
        for _ in range(30):
            await blobs.put(f"a/b/{number}", b"x")
            await blobs.delete([f"a/b/{number}"])

    await asyncio.gather(*(come_and_go(number) for number in range(6)))
    assert await blobs.names("") == []


async def test_what_was_half_written_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = DirectoryBlobs(tmp_path)
    await blobs.put("a", b"whole")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResourceExhausted, match="has no room left"):
        await blobs.put("a", b"half")
    assert await blobs.get("a") == b"whole"
    assert left_in(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", ""])
async def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    blobs = DirectoryBlobs(tmp_path / "state")
    with pytest.raises(InvalidArgument, match="leaves the folder"):
        await blobs.put(name, b"")


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FailedPrecondition, match=r"state_dir .*file/state cannot be written: Not a directory"):
        open_blobs(str(tmp_path / "file" / "state"))


async def test_a_folder_that_vanishes_is_made_again_and_one_that_is_a_file_is_named(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "state")
    (tmp_path / "state").rmdir()
    await blobs.put("a/b", b"1")
    assert await blobs.get("a/b") == b"1"
    (tmp_path / "state" / "c").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be used"):
        await blobs.put("c/d", b"")


@needs_obstore
@pytest.mark.parametrize("where", ["ftp://host/folder", "https://host/folder"])
def test_stores_of_other_kinds_are_refused(where: str) -> None:
    with pytest.raises(InvalidArgument, match="must be the path of a folder, or begin with one of s3://, gs://, az://"):
        open_blobs(where)


@needs_obstore
async def test_a_store_that_cannot_be_reached_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "x"}.items():
        monkeypatch.setenv(name, value)
    from obstore.store import S3Store

    from masklet_server.snapshots.object_blobs import ObjectBlobs

    store = S3Store("bucket", skip_signature=True, retry_config={"max_retries": 0})
    with pytest.raises(Unavailable, match="state_dir s3://bucket cannot be used"):
        await ObjectBlobs(store, "s3://bucket").get("a")
