"""What the parts of a session share: options within the server's limits, and tasks that end together."""

from __future__ import annotations

import asyncio

import pytest

from masklet.errors import InvalidArgument, NotFound
from masklet_server.masks.pool import MaskPool
from masklet_server.session.context import SessionOptions, SessionResources, SessionTasks
from masklet_server.session.events import Configure, Delivery
from masklet_server.session.limits import SessionLimits
from tests.support.fake_sources import FakeSources
from tests.support.fakes import LOGITS_SIZE, FakeEngine


def options(config: Configure, **limits: float) -> SessionOptions:
    held = SessionLimits(**limits)  # type: ignore[arg-type]
    pool = MaskPool(1)
    try:
        return SessionOptions.resolve(config, SessionResources(FakeEngine(), FakeSources(), pool, held))
    finally:
        pool.close()


def test_what_the_client_leaves_out_is_the_servers() -> None:
    found = options(Configure(), window=5, correction_window=7, max_latency_seconds=0.3)
    assert (found.model.name, found.window, found.correction_window) == ("fake", 5, 7)
    assert found.max_latency_seconds == 0.3
    assert not found.latest
    assert not found.waits_for_acks


def test_the_client_gets_what_it_asks_for_within_the_limits() -> None:
    config = Configure(model="other", window=3, correction_window=9, delivery=Delivery.LATEST, max_latency_seconds=0.1)
    found = options(config, window=5, correction_window=7)
    assert (found.model.name, found.window, found.correction_window) == ("other", 3, 7)
    assert found.max_latency_seconds == 0.1
    assert found.latest
    assert found.waits_for_acks
    assert not options(config, correction_window=0).waits_for_acks, "nothing can be corrected"


def test_an_unknown_model_and_logits_without_room_are_refused() -> None:
    with pytest.raises(NotFound, match="this server has fake, other"):
        options(Configure(model="large"))
    size = 4 * LOGITS_SIZE**2
    assert options(Configure(return_logits=True), max_message_bytes=4 * size).limits.max_objects == 3
    with pytest.raises(InvalidArgument, match=f"the logits of one object take {size} bytes"):
        options(Configure(return_logits=True), max_message_bytes=size)


async def test_a_task_that_fails_ends_the_wait_for_another_also_if_it_is_begun_later() -> None:
    tasks = SessionTasks("test")
    later = asyncio.Event()

    async def fail() -> None:
        await later.wait()
        raise NotFound("gone")

    waiting = asyncio.create_task(tasks.until_done(tasks.begin(asyncio.Event().wait(), "main")))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    tasks.begin(fail(), "second")
    later.set()
    with pytest.raises(NotFound, match="gone"):
        await asyncio.wait_for(waiting, 10)
    await tasks.cancel()
    assert not [task for task in asyncio.all_tasks() if task.get_name().endswith(" test")]


async def test_the_end_of_the_main_task_ends_the_wait() -> None:
    tasks = SessionTasks("test")
    done = []

    async def main() -> None:
        done.append(True)

    await asyncio.wait_for(tasks.until_done(tasks.begin(main(), "main")), 10)
    assert done == [True]
