"""Requests that wait: their order, their bounds, and stopping them."""

from __future__ import annotations

import asyncio

import pytest

from masklet.errors import ResourceExhausted
from masklet_server.session.events import Propagate, Reset
from masklet_server.session.limits import SessionLimits
from masklet_server.session.on_request.request_queue import RequestQueue


async def test_first_come_first_served() -> None:
    queue = RequestQueue(SessionLimits())
    requests = [Reset(request_id=number) for number in (1, 2, 3)]
    for request in requests:
        queue.add(request)
    queue.finish()
    handed_out = []
    while (asked := await queue.next()) is not None:
        assert queue.current is asked
        handed_out.append(asked.request)
    assert handed_out == requests
    assert queue.current is None


async def test_the_next_one_is_waited_for() -> None:
    queue = RequestQueue(SessionLimits())
    waiting = asyncio.create_task(queue.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add(Reset())
    asked = await waiting
    assert asked is not None
    assert asked.request == Reset()


async def test_who_waits_learns_that_none_will_come() -> None:
    queue = RequestQueue(SessionLimits())
    waiting = asyncio.create_task(queue.next())
    await asyncio.sleep(0)
    queue.finish()
    assert await waiting is None


async def test_stopping_means_those_that_are_here_and_no_later_one() -> None:
    queue = RequestQueue(SessionLimits())
    for number in (1, 2):
        queue.add(Propagate(request_id=number))
    current = await queue.next()
    queue.stop()
    queue.add(Propagate(request_id=3))
    second, third = await queue.next(), await queue.next()
    assert [one.stopped.is_set() for one in (current, second, third) if one is not None] == [True, True, False]


def test_too_many_wait() -> None:
    queue = RequestQueue(SessionLimits(max_objects=2))
    queue.add(Reset())
    queue.add(Reset())
    with pytest.raises(ResourceExhausted, match="2 requests wait already"):
        queue.add(Reset())


async def test_those_that_were_forgotten_take_no_room() -> None:
    queue = RequestQueue(SessionLimits(max_objects=1))
    queue.add(Reset(request_id=1))
    queue.clear()
    queue.add(Reset(request_id=2))
    asked = await queue.next()
    assert asked is not None
    assert asked.request.request_id == 2
