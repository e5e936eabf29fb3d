"""The watch that ends a session without progress."""

from __future__ import annotations

import asyncio

import pytest

from masklet.errors import DeadlineExceeded
from masklet_server.session.idle import IdleWatch


async def expired(watch: IdleWatch) -> str:
    with pytest.raises(DeadlineExceeded) as raised:
        await asyncio.wait_for(watch.expire(), 10)
    return raised.value.message


async def test_it_names_everything_that_is_waited_for_once() -> None:
    watch = IdleWatch(0.02)
    with watch.waiting("an ack"), watch.waiting("a reader"), watch.waiting("an ack"):
        assert await expired(watch) == "no progress for 0.02 s while waiting for an ack and for a reader"
    assert await expired(watch) == "no progress for 0.02 s while waiting for the client's messages"


async def test_progress_delays_the_end() -> None:
    now = 0.0
    watch = IdleWatch(0.05, clock=lambda: now)
    task = asyncio.create_task(watch.expire())
    await asyncio.sleep(0.2)
    assert not task.done(), "the clock has not moved"
    now = 1.0
    watch.touch()
    await asyncio.sleep(0.2)
    assert not task.done()
    now = 1.06
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(task, 10)


async def test_work_of_the_servers_own_does_not_count() -> None:
    watch = IdleWatch(0.02)
    task = asyncio.create_task(watch.expire())
    with watch.busy():
        with watch.busy():
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        assert not task.done()
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(task, 10)


async def test_waiting_for_the_client_is_cancelled_even_if_the_result_comes_at_that_moment() -> None:
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(IdleWatch(10).wait_for_client(result, "a result"))
    await asyncio.sleep(0)
    result.set_result("late")
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_the_timeout_may_be_extended() -> None:
    watch = IdleWatch(0.1)
    task = asyncio.create_task(watch.expire())
    watch.extend(0.5)
    await asyncio.sleep(0.3)
    assert not task.done()
    with pytest.raises(DeadlineExceeded, match=r"no progress for 0\.5 s"):
        await asyncio.wait_for(task, 10)


async def test_a_longest_time_ends_even_what_makes_progress() -> None:
    now = 0.0
    watch = IdleWatch(1000.0, longest_seconds=0.2, clock=lambda: now)
    task = asyncio.create_task(watch.expire())
    now = 0.19
    watch.touch()
    await asyncio.sleep(0.1)
    assert not task.done()
    now = 0.3
    with watch.busy(), pytest.raises(DeadlineExceeded, match="lasted for max_session_seconds"):
        await asyncio.wait_for(task, 10)
