"""Threads that share the work of a batch: in order, each thing once, and with the giver's help."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from masklet_server.engine.network.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    two = Workers(2)
    yield two
    two.close()


def test_results_come_in_order_and_from_two_threads(workers: Workers) -> None:
    both = threading.Barrier(2, timeout=30)

    def name(number: int) -> tuple[int, str]:
        if number < 2:
            both.wait()  # passes only if two threads compute
        return number, threading.current_thread().name

    found = workers.each(name, range(5))
    assert [number for number, _ in found] == list(range(5))
    assert len({thread for _, thread in found[:2]}) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_function_raises_reaches_the_giver_after_all_is_computed(threads: int) -> None:
    workers, computed = Workers(threads), []

    def compute(number: int) -> None:
        computed.append(number)
        if number in (1, 3):
            raise ValueError(number)

    try:
        with pytest.raises(ValueError, match="1"):
            workers.each(compute, range(5))
        assert sorted(computed) == list(range(5))
        assert workers.each(abs, [-1]) == [1]
    finally:
        workers.close()


def test_work_can_be_shared_within_shared_work(workers: Workers) -> None:
    found = workers.each(lambda i: sum(workers.each(lambda j: 10 * i + j, range(4))), range(4))
    assert found == [sum(10 * i + j for j in range(4)) for i in range(4)]


def test_what_comes_later_is_computed_by_an_idle_thread(workers: Workers) -> None:
    done = threading.Event()
    task = workers.later(done.set)
    assert done.wait(30)
    assert task.result() is None


@pytest.mark.parametrize("threads", [1, 2])
def test_what_comes_later_is_computed_once_and_by_whoever_asks_if_nobody_has_begun(threads: int) -> None:
    workers, calls = Workers(threads), []
    go_on = threading.Event()
    busy = workers.later(go_on.wait)
    later = workers.later(lambda: calls.append(threading.current_thread()))
    later.result()  # would wait without end if it were left to the busy thread
    later.result()
    assert calls == [threading.current_thread()]
    go_on.set()
    busy.result()
    workers.close()


def test_after_the_end_the_giver_computes_alone() -> None:
    before = set(threading.enumerate())  # other tests of this process may have left an engine at work
    workers = Workers(2)
    workers.each(abs, [1, 2, 3])
    task = workers.later(lambda: 5)
    workers.close()
    assert task.result() == 5
    assert workers.each(abs, [-1, -2]) == [1, 2]
    assert workers.later(lambda: 6).result() == 6
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if thread.name.startswith("masklet-engine-")]


def test_torch_computes_with_one_thread_where_others_compute_too(workers: Workers) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with workers.single_threaded():
            assert workers.each(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
        assert torch.get_num_threads() == 2
        with Workers(1).single_threaded():
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
