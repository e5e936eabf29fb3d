"""What waits on disk until it can be decoded."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from masklet.errors import ResourceExhausted
from masklet_server.video.sources import backlog
from masklet_server.video.sources.backlog import Backlog


async def take(waiting: Backlog[int]) -> tuple[int, bytes]:
    first = await waiting.first()
    waiting.drop_first()
    return first


def open_files() -> int:
    """Temporary files without names that this process has open; other descriptors come and go with other tests."""
    return sum(os.path.realpath(entry).endswith("(deleted)") for entry in Path("/proc/self/fd").iterdir())


async def files_are_closed(before: int) -> bool:
    """Whether no more files than before stay open; a thread may hold one a moment longer than its result is awaited."""
    for _ in range(200):
        if open_files() <= before:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_items_come_back_in_order_with_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_FILE_BYTES", 10)
    before = open_files()
    waiting: Backlog[int] = Backlog(80, "frame")
    given = [(i, bytes([i]) * (i % 7)) for i in range(30)]
    taken: list[tuple[int, bytes]] = []
    for item, data in given:
        await waiting.append(item, data)
        if item % 3 == 0:
            assert waiting.peek() == len(taken)
            taken.append(await take(waiting))
    assert open_files() > before + 3, "several files"
    while waiting:
        taken.append(await take(waiting))
    assert taken == given
    assert waiting.nbytes == 0
    assert await files_are_closed(before)


async def test_bytes_that_were_taken_make_room() -> None:
    waiting: Backlog[int] = Backlog(10, "packet")
    await waiting.append(1, bytes(6))
    with pytest.raises(ResourceExhausted, match=r"packet: .* are 11 bytes, more than max_upload_bytes = 10; .*ack"):
        await waiting.append(2, bytes(5))
    await take(waiting)
    await waiting.append(2, bytes(10))
    assert (await take(waiting))[0] == 2


async def test_the_number_of_items_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_ITEMS", 2)
    waiting: Backlog[int] = Backlog(10, "frame")
    for item in range(2):
        await waiting.append(item, b"")
    with pytest.raises(ResourceExhausted, match="3 messages, more than 2"):
        await waiting.append(2, b"")


async def test_clearing_frees_the_files() -> None:
    before = open_files()
    waiting: Backlog[int] = Backlog(10, "frame")
    await waiting.append(1, b"data")
    waiting.clear()
    assert (len(waiting), waiting.nbytes) == (0, 0)
    assert await files_are_closed(before)


async def test_few_files_are_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_FILE_BYTES", 10)
    before = open_files()
    waiting: Backlog[int] = Backlog(1000, "frame")
    for item in range(100):
        await waiting.append(item, bytes(10))
    assert 4 < open_files() - before <= 9
    waiting.clear()
    assert await files_are_closed(before)
