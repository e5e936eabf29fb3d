"""Which worker takes a stream, and what all workers together are."""

from __future__ import annotations

import asyncio
import time

import pytest

from masklet.errors import Unavailable
from masklet.v1 import server_info_pb2
from masklet_cluster.gateway.whole import whole
from masklet_cluster.placement.placement import LeaseRequest, Lost, State, WorkerReport
from masklet_cluster.placement.static import choose
from masklet_cluster.placement.worker import Connection, Worker
from tests.support.streams import free_port


def info(
    instance: str = "", *, models: tuple[str, ...] = ("nano",), sessions: int = 0, banks: int = 0, most: int = 4
) -> server_info_pb2.GetServerInfoResponse:
    answer = server_info_pb2.GetServerInfoResponse(server_version="1", instance_id=instance)
    for number, name in enumerate(("nano", "large")):
        answer.models.add(name=name, loaded=name in models, default=number == 0, image_size=384)
    answer.limits.max_sessions = most
    answer.limits.others["max_bank_memory_bytes"] = 100.0
    answer.load.sessions, answer.load.bank_bytes = sessions, banks
    return answer


def worker(name: str, told: server_info_pb2.GetServerInfoResponse, *, state: State = "serving") -> Worker:
    one = Worker(name, "127.0.0.1:1", Connection(1024))
    one.info, one.state = told, state
    return one


def chosen(request: LeaseRequest, *workers: Worker) -> str:
    one = choose(workers, request)
    return "" if one is None else one.name


async def test_a_stream_goes_to_the_worker_that_has_its_model() -> None:
    workers = worker("a", info()), worker("b", info(models=("nano", "large"), sessions=1, banks=50))
    assert chosen(LeaseRequest(), *workers) == "a"
    assert chosen(LeaseRequest("large"), *workers) == "b"
    assert chosen(LeaseRequest("large@384"), *workers) == "b"
    assert chosen(LeaseRequest("unknown"), *workers) == "a", "somebody must say that there is none"


async def test_a_stream_goes_to_a_worker_that_can_load_its_model() -> None:
    """Not to one that would say that there is no such model."""
    other = info(sessions=3, banks=90)
    other.models.add(name="huge", loaded=False, image_size=1024)
    workers = worker("a", info()), worker("b", other)
    assert chosen(LeaseRequest("huge"), *workers) == "b"
    assert chosen(LeaseRequest("huge@1024"), *workers) == "b"
    silent = worker("c", server_info_pb2.GetServerInfoResponse())
    assert chosen(LeaseRequest("huge"), workers[0], silent) == "c", "which has not told what it has"


async def test_a_session_goes_to_the_worker_that_has_it() -> None:
    workers = worker("a", info("one")), worker("b", info("two", sessions=4, banks=99))
    assert chosen(LeaseRequest(instance_id="two"), *workers) == "b", "also if it is full"
    assert chosen(LeaseRequest(instance_id="gone"), *workers) == "a"
    assert chosen(LeaseRequest(instance_id="two", avoid=frozenset("b")), *workers) == "a"


async def test_a_stream_goes_to_the_least_busy_worker() -> None:
    workers = worker("a", info(sessions=1, banks=80)), worker("b", info(sessions=2, banks=10))
    assert chosen(LeaseRequest(), *workers) == "b"
    full = worker("c", info(sessions=4))
    assert chosen(LeaseRequest(), *workers, full) == "b"
    assert chosen(LeaseRequest(), full) == "c", "which says itself that it is full"


async def test_streams_that_were_just_placed_count() -> None:
    workers = worker("a", info()), worker("b", info())
    async with workers[0].lease():
        assert chosen(LeaseRequest(), *workers) == "b"
        async with workers[1].lease(), workers[1].lease():
            assert chosen(LeaseRequest(), *workers) == "a"


@pytest.mark.parametrize("state", ["draining", "lost"])
async def test_workers_that_do_not_serve_get_nothing(state: State) -> None:
    gone, here = worker("a", info("one"), state=state), worker("b", info("two", sessions=3))
    assert chosen(LeaseRequest(instance_id="one"), gone, here) == "b"
    assert chosen(LeaseRequest(), gone) == ""


async def test_a_worker_whose_connection_has_broken_gets_nothing_until_it_has_answered() -> None:
    broken, other = worker("a", info("one")), worker("b", info("two", sessions=3))
    async with broken.lease() as lease:
        lease.doubt()
    assert chosen(LeaseRequest(instance_id="one"), broken, other) == "b", "also its own sessions"
    assert chosen(LeaseRequest(), broken) == "a", "if there is no other one, it may be back"


async def test_a_broken_connection_has_the_worker_asked_at_once() -> None:
    one = Worker("a", f"127.0.0.1:{free_port()}", Connection(1024))
    one.state = "serving"
    one.start()
    await one.first_probe()
    assert one.report().state == "serving", "one refused probe may be chance"
    begun = time.monotonic()
    one.doubt()
    while one.report().state != "lost":
        await asyncio.sleep(0.001)
        assert time.monotonic() < begun + 0.4, "it waits for its next turn"
    await one.close()


async def test_a_lease_tells_that_its_worker_is_lost() -> None:
    told: list[str] = []
    one = worker("a", info())
    async with one.lease() as lease:
        forget = lease.lost.call(lambda: told.append("forgotten"))
        lease.lost.call(lambda: told.append("told"))
        forget()
        await one.close()
    assert told == ["told"]
    late = Lost()
    late.set()
    late.call(lambda: told.append("at once"))
    assert told == ["told", "at once"]


def test_all_workers_are_told_as_one_server() -> None:
    told = [
        WorkerReport("a", "serving", 2, info("one", sessions=2, banks=5)),
        WorkerReport("b", "draining", 1, info("two", models=("large",), sessions=1, banks=7, most=8)),
        WorkerReport("c", "lost"),
    ]
    told[1].info.limits.max_objects = 3
    answer = whole(told)
    assert answer.instance_id == ""
    assert {one.name: one.loaded for one in answer.models} == {"nano": True, "large": True}
    assert [one.name for one in answer.models if one.default] == ["nano"]
    assert (answer.limits.max_sessions, answer.limits.max_objects) == (12, 3)
    assert (answer.load.sessions, answer.load.bank_bytes) == (3, 12)
    assert [(one.name, one.state, one.streams, list(one.models)) for one in answer.workers] == [
        ("a", "serving", 2, ["nano"]),
        ("b", "draining", 1, ["large"]),
        ("c", "lost", 0, []),
    ]
    told[0].info.limits.max_sessions = 0
    assert whole(told).limits.max_sessions == 0, "no limit"
    with pytest.raises(Unavailable, match="no server behind this gateway answers"):
        whole(told[2:])


def test_waiting_of_all_workers_is_added_where_they_count_in_the_same_way() -> None:
    told = [WorkerReport("a", "serving", 0, info("one")), WorkerReport("b", "serving", 0, info("two"))]
    for number, one in enumerate(told):
        one.info.load.jobs = 5 + number
        one.info.load.queue_bounds_seconds.extend([0.1, 1.0])
        one.info.load.queue_counts.extend([1, 2 + number])
    load = whole(told).load
    assert (load.jobs, list(load.queue_counts), list(load.queue_bounds_seconds)) == (11, [2, 5], [0.1, 1.0])
    told[1].info.load.queue_bounds_seconds[0] = 0.2
    load = whole(told).load
    assert (load.jobs, list(load.queue_counts), list(load.queue_bounds_seconds)) == (11, [], [])
