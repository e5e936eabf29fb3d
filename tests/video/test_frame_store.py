"""Frames that are kept on disk, to be read again."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from masklet.errors import ResourceExhausted
from masklet_server.video.frame import Frame
from masklet_server.video.frame_store import FrameStore

SIZE = 8 * 8 * 3
RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 256, (20, 8, 8, 3), np.uint8)


def frame(index: int, pts: int | None = None) -> Frame:
    stamp = index * 10 if pts is None else pts
    return Frame(index, stamp, Fraction(1, 100), PIXELS[index], 48, 64, 1.0, capture_time_nanoseconds=7 + index)


async def filled(count: int, *pts: int) -> FrameStore:
    store = FrameStore(10**6)
    for index in range(count):
        await store.add(frame(index, pts[index] if pts else None))
    store.end()
    return store


async def test_frames_come_back_in_any_order() -> None:
    store = await filled(20)
    for index in (13, 0, 19, 13, 5):
        found = await store.frame(index)
        assert found is not None
        np.testing.assert_array_equal(found.pixels, PIXELS[index])
        assert (found.index, found.pts, found.time_base) == (index, index * 10, Fraction(1, 100))
        assert (found.height, found.width, found.capture_time_nanoseconds) == (48, 64, 7 + index)
        assert found.arrived_seconds > 1.0, "now"
    assert await store.frame(20) is None
    assert len(store) == 20


async def test_reading_a_frame_waits_for_it_or_for_the_end() -> None:
    store = FrameStore(10**6)
    waiting = [asyncio.create_task(store.frame(i)) for i in (1, 1, 4)]
    reaching = asyncio.create_task(store.reach(16))
    await store.add(frame(0))
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    await store.add(frame(1))
    found = await asyncio.gather(*waiting[:2])
    assert [one.index for one in found if one is not None] == [1, 1]
    await asyncio.sleep(0.01)
    assert not waiting[2].done()
    assert not reaching.done()
    store.end()
    assert await waiting[2] is None
    assert await reaching == 2
    assert store.is_complete


async def test_reaching_is_bounded_by_what_was_asked() -> None:
    store = await filled(20)
    assert (await store.reach(16), await store.reach(), await store.reach(99)) == (16, 20, 20)


@pytest.mark.parametrize(
    ("seconds", "nearest"), [(-1.0, 0), (0.0, 0), (0.05, 0), (0.0501, 1), (0.149, 1), (0.15, 1), (0.151, 2), (9.0, 3)]
)
async def test_the_nearest_in_time_is_the_earlier_of_two(seconds: float, nearest: int) -> None:
    assert await (await filled(4)).nearest(seconds) == nearest


async def test_times_may_go_back() -> None:
    store = await filled(4, 0, 30, 10, 30)
    assert await store.nearest(0.12) == 2
    assert await store.nearest(0.30) == 1


async def test_the_bound_is_named() -> None:
    store = FrameStore(2 * SIZE)
    await store.add(frame(0))
    await store.add(frame(1))
    with pytest.raises(ResourceExhausted, match=f"max_stored_frame_bytes = {2 * SIZE} bytes at {SIZE} bytes a frame"):
        await store.add(frame(2))
    assert len(store) == 2


def open_temporary_files() -> set[str]:
    """Files without a name that this process has open."""
    entries = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return {f"{entry.name}: {target}" for entry in entries if (target := str(entry.readlink())).endswith("(deleted)")}


async def test_closing_frees_the_file_and_harms_no_read_under_way() -> None:
    before = open_temporary_files()
    store = await filled(2)
    assert len(open_temporary_files() - before) == 1
    reading = asyncio.create_task(store.frame(1))
    await asyncio.sleep(0)
    store.close()
    found = await reading
    assert found is not None
    np.testing.assert_array_equal(found.pixels, PIXELS[1])
    for _ in range(500):  # the thread lets the file go a moment after it has read
        if not open_temporary_files() - before:
            break
        await asyncio.sleep(0.02)
    assert not open_temporary_files() - before
