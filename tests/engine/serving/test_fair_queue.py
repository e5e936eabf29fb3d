from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet_server.engine.serving.fair_queue import Entry, FairQueue


def test_a_busy_stream_does_not_hold_up_another() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=1)
    for i in range(100):
        queue.put(Entry(f"a{i}", "a", "frame"))
    queue.put(Entry("b0", "b", "frame"))
    assert queue.take() == ["a0"]
    assert queue.take() == ["b0"]
    assert queue.take() == ["a1"]


def test_one_job_of_each_stream_forms_a_batch() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=8)
    for job in ("a0", "a1", "b0", "c0"):
        queue.put(Entry(job, job[0], "frame"))
    assert queue.take() == ["a0", "b0", "c0"]
    assert queue.take() == ["a1"]


def test_only_jobs_of_one_kind_share_a_batch() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=8)
    queue.put(Entry("a", "a", "frame"))
    queue.put(Entry("b", "b", None))
    queue.put(Entry("c", "c", "frame"))
    queue.put(Entry("d", "d", "other model"))
    assert [queue.take() for _ in range(3)] == [["a", "c"], ["b"], ["d"]]


def test_a_batch_has_a_greatest_weight_and_a_heavier_job_runs_alone() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=4)
    for job, weight in (("a", 9), ("b", 2), ("c", 3), ("d", 2)):
        queue.put(Entry(job, job, "frame", weight))
    assert [queue.take() for _ in range(3)] == [["a"], ["b", "d"], ["c"]]


def test_take_lingers_for_the_streams_of_the_last_batch() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=8, linger_seconds=30)
    queue.put(Entry("a0", "a", "frame"))
    queue.put(Entry("b0", "b", "frame"))
    assert queue.take() == ["a0", "b0"]
    queue.put(Entry("a1", "a", "frame"))
    late = threading.Timer(0.05, lambda: queue.put(Entry("b1", "b", "frame")))
    late.start()
    assert queue.take() == ["a1", "b1"]
    late.join()


def test_a_stream_that_has_ended_is_not_waited_for_for_ever() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=8, linger_seconds=0.01)
    queue.put(Entry("a0", "a", "frame"))
    queue.put(Entry("b0", "b", "frame"))
    queue.take()
    queue.put(Entry("a1", "a", "frame"))
    assert queue.take() == ["a1"]


def test_who_leaves_while_take_lingers_does_not_end_it() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=8, linger_seconds=0.5)
    queue.put(Entry("a0", "a", "frame"))
    queue.put(Entry("b0", "b", "frame"))
    assert queue.take() == ["a0", "b0"]
    queue.put(Entry("a1", "a", "frame"))  # take lingers for b
    taken: list[list[str]] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    time.sleep(0.05)
    assert queue.drop(lambda entry: True) == ["a1"], "the test came too late"
    thread.join(timeout=1)
    assert taken == [], "an empty batch is the end of the engine's thread"
    queue.put(Entry("c0", "c", "frame"))
    thread.join(timeout=10)
    assert taken == [["c0"]]


def test_closing_wakes_the_taker_and_returns_what_waited() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=8)
    taken: list[list[str]] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    time.sleep(0.05)
    assert queue.close() == []
    thread.join(timeout=10)
    assert taken == [[]]
    with pytest.raises(RuntimeError, match="closed"):
        queue.put(Entry("a", "a", "frame"))


def test_dropping_a_stream_keeps_the_others() -> None:
    queue: FairQueue[str] = FairQueue(max_weight=1)
    for job in ("a0", "b0", "a1"):
        queue.put(Entry(job, job[0], "frame"))
    assert queue.drop(lambda entry: entry.stream == "a") == ["a0", "a1"]
    assert queue.take() == ["b0"]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 5)), min_size=1, max_size=60), st.integers(1, 8))
def test_every_job_comes_out_once_in_the_order_of_its_stream(jobs: list[tuple[str, int]], max_weight: int) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(max_weight, linger_seconds=0)
    for number, (stream, weight) in enumerate(jobs):
        queue.put(Entry((stream, number), stream, "frame", weight))
    out: list[tuple[str, int]] = []
    while len(out) < len(jobs):
        batch = queue.take()
        assert max(Counter(stream for stream, _ in batch).values()) == 1
        out += batch
    assert sorted(number for _, number in out) == list(range(len(jobs)))
    for stream in "abcde":
        numbers = [number for s, number in out if s == stream]
        assert numbers == sorted(numbers)
