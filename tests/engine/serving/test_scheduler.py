"""The scheduler: one thread, fair turns, and failures that stay with the job at fault."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

from masklet.errors import FailedPrecondition, ResourceExhausted, Unavailable
from masklet_server.engine.serving import scheduler
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.engine import Engine
from masklet_server.engine.serving.jobs import StreamContext
from masklet_server.engine.serving.picture_jobs import PictureJob
from tests.support.engine import click, job, small_network


async def test_everything_runs_on_one_thread() -> None:
    threads = set()

    def watch(*args: Any) -> Any:
        threads.add(threading.current_thread().name)
        return run_jobs(*args)

    running = Engine({"nano": small_network()})
    running.start()
    with mock.patch.object(scheduler, "run_jobs", watch):
        await asyncio.gather(*(running.run(job(running.new_bank("nano"), 0, [click()], name=s)) for s in "abc"))
    await running.close()
    assert threads == {"masklet-engine"}


async def test_one_stream_cannot_starve_another() -> None:
    running = Engine({"nano": small_network()})
    order: list[str] = []

    async def ask(name: str) -> None:
        await running.run(job(running.new_bank("nano"), 0, [click()], name=name))
        order.append(name)

    asking = [asyncio.ensure_future(ask("busy")) for _ in range(10)]
    await asyncio.sleep(0)
    asking.append(asyncio.ensure_future(ask("modest")))
    await asyncio.sleep(0)
    running.start()
    await asyncio.gather(*asking)
    await running.close()
    assert order.index("modest") <= 1, order


async def test_a_bad_job_fails_alone(engine: Engine) -> None:
    good, bad = engine.new_bank("nano"), engine.new_bank("nano")
    good_job, bad_job = job(good, 0, [click()], name="good"), job(bad, 0, name="bad")
    found = await asyncio.gather(engine.run(good_job), engine.run(bad_job), return_exceptions=True)
    assert isinstance(found[1], FailedPrecondition)
    assert not isinstance(found[0], BaseException)
    assert good.last_frame == 0
    assert bad.last_frame is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: tried to ..."),
    ],
)
async def test_out_of_memory_is_the_asking_sessions_alone(engine: Engine, error: Exception) -> None:
    def run(network: Any, jobs: Any, observer: Any = None) -> Any:
        if any(j.stream.id == "greedy" for j in jobs):
            raise error
        return run_jobs(network, jobs, observer)

    modest, greedy = engine.new_bank("nano"), engine.new_bank("nano")
    with mock.patch.object(scheduler, "run_jobs", run):
        found = await asyncio.gather(
            engine.run(job(modest, 0, [click()], name="modest")),
            engine.run(job(greedy, 0, [click()], name="greedy")),
            return_exceptions=True,
        )
    assert not isinstance(found[0], BaseException)
    assert isinstance(found[1], ResourceExhausted)
    assert "smaller model, fewer objects" in str(found[1])
    await engine.run(job(greedy, 0, [click()], name="greedy"))


async def test_a_bug_is_handed_to_the_one_who_waits_and_the_thread_lives_on(engine: Engine) -> None:
    bank = engine.new_bank("nano")
    with (
        mock.patch.object(scheduler, "run_jobs", side_effect=ZeroDivisionError("boom")),
        pytest.raises(ZeroDivisionError),
    ):
        await engine.run(job(bank, 0, [click()]))
    await engine.run(job(bank, 0, [click()]))


async def test_forgetting_a_stream_drops_its_waiting_jobs() -> None:
    idle = Engine({"nano": small_network()})  # never started: everything waits
    waiting = asyncio.ensure_future(idle.run(job(idle.new_bank("nano"), 0, [click()], name="gone")))
    other = asyncio.ensure_future(idle.run(job(idle.new_bank("nano"), 0, [click()], name="stays")))
    await asyncio.sleep(0)
    await idle.forget("gone")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not other.done()
    await idle.close()
    with pytest.raises(Unavailable):
        await other


async def test_a_cancelled_wait_leaves_the_bank_untouched() -> None:
    idle = Engine({"nano": small_network()})
    bank = idle.new_bank("nano")
    waiting = asyncio.ensure_future(idle.run(job(bank, 0, [click()])))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    idle.start()
    await idle.run(job(idle.new_bank("nano"), 0, [click()]))
    assert bank.last_frame is None
    await idle.close()


async def test_a_cancelled_job_takes_no_turn_of_its_stream() -> None:
    """Else the next job of the stream would wait for a batch of the others."""
    idle = Engine({"nano": small_network()})
    order: list[str] = []

    async def ask(name: str) -> None:
        await idle.run(
            replace(
                job(idle.new_bank("nano"), 0, [click()], name=name),
                stream=StreamContext(name, "nano", deterministic=True),
            )
        )
        order.append(name)

    given_up = asyncio.ensure_future(ask("a"))
    await asyncio.sleep(0)
    asking = [asyncio.ensure_future(ask(name)) for name in ("b", "a")]
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    idle.start()
    await asyncio.gather(*asking)
    await idle.close()
    assert order == ["a", "b"]


async def test_a_closed_engine_refuses(engine: Engine) -> None:
    bank = engine.new_bank("nano")
    await engine.close()
    with pytest.raises(Unavailable, match="shutting down"):
        await engine.run(job(bank, 0, [click()]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_nobody_waits_for_an_engine_that_has_broken_down() -> None:
    observer = mock.Mock()
    observer.on_queue.side_effect = RuntimeError("no job's fault")
    engine = Engine({"nano": small_network()}, observer=observer)
    jobs = [asyncio.ensure_future(engine.segment(PictureJob("nano", name, "none", []))) for name in "ab"]
    await asyncio.sleep(0)  # both wait in the queue
    engine.start()
    for waiting in jobs:  # the job under way, and the job that waits
        with pytest.raises(Unavailable, match="must be started again"):
            await asyncio.wait_for(waiting, 10)
    with pytest.raises(Unavailable, match="must be started again"):
        await engine.run(job(engine.new_bank("nano"), 0, [click()]))
    await engine.close()
