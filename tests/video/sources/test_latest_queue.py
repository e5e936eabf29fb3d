"""A queue that gives the latest items, and drops those that have waited too long."""

from __future__ import annotations

from masklet_server.video.sources.latest_queue import LatestQueue


def queue(clock: list[float], *, max_wait: float = 3.0, max_bytes: int = 10**9) -> LatestQueue[int]:
    return LatestQueue(max_wait, max_bytes=max_bytes, clock=lambda: clock[0])


def test_the_oldest_that_has_not_waited_too_long_comes_first() -> None:
    clock = [0.0]
    waiting = queue(clock)
    for index in range(6):
        clock[0] = index
        waiting.push(index, clock[0], 1)
    assert len(waiting) == 4
    assert (waiting.peek(), waiting.pop()) == (2, 2)
    clock[0] = 100.0
    assert waiting.is_late
    assert (waiting.peek(), waiting.pop()) == (5, 5), "the newest, however late"
    assert not waiting
    assert not waiting.is_late


def test_what_waits_is_bounded_by_memory() -> None:
    waiting = queue([0.0], max_wait=1e6, max_bytes=50)
    for index in range(100):
        waiting.push(index, 0.0, 10)
    assert [waiting.pop() for _ in range(5)] == [95, 96, 97, 98, 99]
    for index in range(3):
        waiting.push(index, 0.0, 1000)
    assert [waiting.pop() for _ in range(len(waiting))] == [1, 2], "two may always wait"
    waiting.push(7, 0.0, 50)
    waiting.clear()
    waiting.push(8, 0.0, 50)
    waiting.push(9, 0.0, 1)
    waiting.push(10, 0.0, 1)
    assert [waiting.pop() for _ in range(len(waiting))] == [9, 10], "what is cleared does not count"
