"""Readers that give only the latest frames: what they skip, and when they have pictures decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from masklet.errors import DataLoss
from masklet_server.session.automatic.latest_reader import LatestReader, PacedReader
from masklet_server.session.idle import IdleWatch
from masklet_server.video.frame import Frame
from masklet_server.video.info import VideoInfo
from masklet_server.video.picture import Picture
from tests.support.fake_sources import FakePictures


def frame_of(index: int, arrived: float, decode_seconds: float = 0.0) -> Frame:
    pixels = np.zeros((16, 16, 3), np.uint8)
    return Frame(index, 0, Fraction(1), pixels, 48, 64, arrived_seconds=arrived, decode_seconds=decode_seconds)


async def settle() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def until(reached: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not reached():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


# Frames of packets, which are all decoded


async def latest(count: int, *, max_latency: float, clock: list[float]) -> tuple[LatestReader, FakePictures]:
    source = FakePictures(16)
    for index in range(count):
        await source.put_frame(frame_of(index, float(index)))
    reader = LatestReader(source, IdleWatch(60), max_latency_seconds=max_latency, clock=lambda: clock[0])
    return reader, source


async def test_the_oldest_that_is_fresh_enough_comes_first() -> None:
    clock = [0.0]
    reader, _ = await latest(10, max_latency=3.0, clock=clock)
    async with reader.running():
        await settle()
        clock[0] = 9.0
        upcoming = await reader.peek()
        assert upcoming is not None
        assert upcoming.index == 6
        taken = reader.take()
        assert (taken.frame.index, taken.step, taken.skipped) == (6, 0, (0, 1, 2, 3, 4, 5))
        clock[0] = 10.0
        taken = reader.take()
        assert (taken.frame.index, taken.step, taken.skipped) == (7, 1, ())
        clock[0] = 100.0
        taken = reader.take()
        assert (taken.frame.index, taken.step, taken.skipped) == (9, 2, (8,)), "the newest, however late"
        assert (reader.taken, reader.frame_count) == (3, 10)
        assert await reader.peek() is None
        assert not reader.at_end


async def test_the_pump_ends_with_its_block() -> None:
    reader, _ = await latest(1, max_latency=1.0, clock=[0.0])
    before = asyncio.all_tasks()
    async with reader.running():
        await settle()
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


# Pictures, of which only those are decoded that are wanted


class Camera:
    """Pictures by the moment; each takes `making` seconds to decode, by a clock that tests turn.

    Attributes:
        asked: When a picture was asked for.
    """

    def __init__(self, clock: list[float], making: float = 0.0) -> None:
        self.asked: list[float] = []
        self.undecoded_at_end: tuple[int, ...] = ()
        self._clock = clock
        self._making = making
        self._waiting: list[int] = []
        self._count = 0
        self._changed = asyncio.Event()
        self._ended = False
        self.fault: Exception | None = None

    def begin_at(self, index: int) -> None:
        self._count = index

    def shoot(self) -> None:
        self._waiting.append(self._count)
        self._count += 1
        self._changed.set()

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def has_room_for(self, picture: Picture) -> bool:
        return True

    async def wait_for_room(self, picture: Picture) -> None:
        raise NotImplementedError

    async def next_frame(self) -> Frame | None:
        self.asked.append(self._clock[0])
        while not self._waiting and not self._ended and self.fault is None:
            self._changed.clear()
            await self._changed.wait()
        if self.fault is not None:
            raise self.fault
        if not self._waiting:
            return None
        index = self._waiting[-1]
        self._waiting.clear()
        return frame_of(index, self._clock[0], self._making)

    async def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def feed(self, picture: object) -> None:
        raise AssertionError("shoot instead")

    async def info(self) -> VideoInfo:
        return VideoInfo(48, 64)

    async def __aenter__(self) -> Camera:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...


def paced(camera: Camera, clock: list[float], *, max_latency: float = 0.02) -> PacedReader:
    return PacedReader(camera, IdleWatch(60), max_latency_seconds=max_latency, clock=lambda: clock[0])


async def a_frame(reader: PacedReader, camera: Camera) -> int:
    """One more picture, waited for and taken; its index."""
    camera.shoot()
    assert await asyncio.wait_for(reader.ready(), 10)
    return reader.take().frame.index


async def test_a_picture_is_decoded_shortly_before_it_is_wanted() -> None:
    clock = [0.0]
    camera = Camera(clock, making=0.010)
    reader = paced(camera, clock)
    async with reader.running():
        for _ in range(3):  # three frames, of 50 ms each
            await a_frame(reader, camera)
            clock[0] += 0.050
        await a_frame(reader, camera)
        asked = len(camera.asked)
        camera.shoot()
        clock[0] += 0.030
        await asyncio.sleep(0.05)  # it looks at the clock again after the time that it expects to wait
        assert len(camera.asked) == asked, "10 ms too early"
        camera.shoot()
        clock[0] += 0.011
        await until(lambda: len(camera.asked) > asked)
        await settle()
        assert len(camera.asked) == asked + 1
        clock[0] += 0.009
        assert reader.has_next
        taken = reader.take()
        assert (taken.frame.index, taken.skipped) == (5, (4,))


async def test_a_tracker_that_comes_back_early_does_not_wait_for_the_time() -> None:
    clock = [0.0]
    camera = Camera(clock)
    reader = paced(camera, clock)
    async with reader.running():
        for _ in range(3):
            await a_frame(reader, camera)
            clock[0] += 1000.0
        assert await a_frame(reader, camera) == 3
        assert await a_frame(reader, camera) == 4, "asked for 1,000 s before it was expected"


async def test_a_fast_tracker_has_every_picture_decoded_ahead() -> None:
    clock = [0.0]
    camera = Camera(clock, making=0.010)
    reader = paced(camera, clock)
    async with reader.running():
        for index in range(20):
            camera.shoot()
            await settle()
            assert reader.has_next, "while the tracker is busy with the one before"
            taken = reader.take()
            assert (taken.frame.index, taken.skipped) == (index, ())
            clock[0] += 0.005


async def test_a_frame_that_grew_old_ahead_is_replaced() -> None:
    clock = [0.0]
    camera = Camera(clock)
    reader = paced(camera, clock, max_latency=0.001)
    async with reader.running():
        await a_frame(reader, camera)
        camera.shoot()
        await settle()
        clock[0] += 2.0
        old_but_newest = reader.has_next
        camera.shoot()
        assert (old_but_newest, reader.has_next) == (True, False)
        assert await asyncio.wait_for(reader.ready(), 10)
        camera.shoot()
        clock[0] += 0.019
        assert reader.has_next, "decoded a moment ago: a tracker that is slow to take would wait for ever"
        taken = reader.take()
        assert (taken.frame.index, taken.skipped) == (2, (1,))


async def test_a_frame_that_came_while_something_else_was_waited_for_is_replaced() -> None:
    clock = [0.0]
    camera = Camera(clock)
    reader = paced(camera, clock)
    async with reader.running():
        await a_frame(reader, camera)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.ready(), 0.01)  # a correction comes first
        camera.shoot()
        await settle()
        clock[0] += 3.0
        camera.shoot()
        assert not reader.has_next
        assert await asyncio.wait_for(reader.ready(), 10)
        assert reader.take().frame.index == 2


async def test_the_last_picture_is_not_lost_and_then_it_is_over() -> None:
    clock = [0.0]
    camera = Camera(clock)
    reader = paced(camera, clock)
    async with reader.running():
        for _ in range(3):
            camera.shoot()
        await camera.end()
        assert await asyncio.wait_for(reader.ready(), 10)
        assert reader.take().skipped == (0, 1)
        assert not await asyncio.wait_for(reader.ready(), 10)
        assert reader.at_end
        assert (reader.taken, reader.frame_count) == (1, 3)


async def test_a_fault_comes_after_the_frames_before_it() -> None:
    clock = [0.0]
    camera = Camera(clock)
    reader = paced(camera, clock)
    async with reader.running():
        camera.shoot()
        await until(lambda: reader.has_next)
        camera.fault = DataLoss("broken")
        assert await reader.ready()
        reader.take()
        with pytest.raises(DataLoss, match="broken"):
            await asyncio.wait_for(reader.ready(), 10)
