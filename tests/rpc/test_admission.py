from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from masklet.v1 import server_info_pb2
from masklet_server.rpc import admission
from masklet_server.rpc.admission import RateLimiter, TokenBucket
from tests.support.rpc import Edge, details_of, edge, finish, open_stream, segment


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_capacity_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(rate=2.0, capacity=3.0, clock=clock)
    assert [bucket.try_take(1) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.try_take(1) == 0.5
    clock.now = 0.5
    assert bucket.try_take(1) == 0.0
    was_full = bucket.full
    clock.now = 1000.0
    assert (was_full, bucket.full) == (False, True)
    assert bucket.try_take(3.5) == 0.25, "no more than its capacity is saved up"


def test_a_bucket_may_go_below_zero_and_recovers() -> None:
    clock = Clock()
    bucket = TokenBucket(rate=10.0, capacity=10.0, clock=clock)
    assert bucket.reserve(10) == 0.0
    assert bucket.reserve(30) == 3.0
    clock.now = 3.0
    assert bucket.reserve(5) == 0.5


def test_clients_have_buckets_of_their_own() -> None:
    limiter = RateLimiter(1.0, clock=Clock())
    assert limiter.try_take("a") == 0.0
    assert limiter.try_take("a") == 1.0
    assert limiter.try_take("b") == 0.0


def test_no_rate_no_limit() -> None:
    limiter = RateLimiter(0.0)
    assert all(limiter.try_take("a") == 0.0 for _ in range(1000))


def test_buckets_of_silent_clients_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_MAX_BUCKETS", 10)
    clock = Clock()
    limiter = RateLimiter(1.0, clock=clock)
    for i in range(1000):
        clock.now += 1.0
        limiter.try_take(f"client {i}")
    assert len(limiter) <= 10


async def refusal(stub: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await open_stream(stub)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value


@pytest.mark.parametrize("limit", ["max_sessions", "max_sessions_per_client"])
async def test_too_many_sessions(limit: str) -> None:
    async with edge(**{limit: 2}) as running, running.stub() as stub:
        calls = [await open_stream(stub) for _ in range(2)]
        details = details_of(await refusal(stub))
        assert details["QuotaFailure"].violations[0].subject == limit
        assert details["RetryInfo"].retry_delay.ToSeconds() > 0
        assert running.sample("refusals_total", limit=limit) == 1
        assert running.sample("sessions") == 2

        await finish(calls[0])
        await open_stream(stub)
        assert running.sample("sessions_ended_total", code="OK") == 1


async def test_a_cancelled_session_frees_its_place_at_once() -> None:
    async with edge(max_sessions=1) as running, running.stub() as stub:
        call = await open_stream(stub)
        call.cancel()
        await asyncio.wait_for(running.service.ended.wait(), 10)
        await until_no_session(running)
        assert running.sample("sessions_ended_total", code="CANCELLED") == 1
        await open_stream(stub)


async def test_too_many_requests() -> None:
    async with edge(requests_per_second=0.5) as running, running.stub() as stub:
        await segment(stub)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await segment(stub)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = details_of(caught.value)
        assert details["QuotaFailure"].violations[0].subject == "requests_per_second"
        assert 0 < details["RetryInfo"].retry_delay.ToMilliseconds() <= 2000


async def test_fast_uploads_are_held_back_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with edge(upload_bytes_per_second=1000) as running, running.stub() as stub:
        monkeypatch.setattr("masklet_server.rpc.admission.asyncio.sleep", sleep)
        await segment(stub, size=3000)
        monkeypatch.undo()
        assert [round(seconds) for seconds in slept if seconds > 0.2] == [2]  # the watch over connections sleeps, too
        assert running.sample("upload_bytes_total") >= 3000


async def test_each_message_of_a_stream_counts_against_the_rate() -> None:
    async with edge() as running, running.stub() as stub:
        call = await open_stream(stub)
        await finish(call)
        assert running.sample("upload_bytes_total") > 0


async def test_a_full_server_still_describes_itself() -> None:
    async with edge(max_sessions=1) as running, running.stub() as stub:
        await open_stream(stub)
        await refusal(stub)
        info = await stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())
        assert info.server_version == "test"


async def until_no_session(running: Edge) -> None:
    for _ in range(1000):
        if running.sample("sessions") == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the session is still counted")
