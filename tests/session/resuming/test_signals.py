"""A signal wakes the tasks whose conditions hold, and no others."""

from __future__ import annotations

import asyncio

import pytest

from masklet_server.session.resuming.signals import Signal


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_task_goes_on_when_its_condition_holds_and_not_before() -> None:
    signal, reached, looks = Signal(), 0, 0

    def holds() -> bool:
        nonlocal looks
        looks += 1
        return reached >= 2

    waiting = asyncio.create_task(signal.until(holds))
    await settled()
    for value in (1, 2):
        assert not waiting.done()
        reached = value
        signal.give()
        signal.give()
        await settled()
    assert waiting.done()
    assert looks == 4, "once before it waits, once for both signals of each moment, once when it is woken"
    await signal.until(lambda: True)


async def test_a_change_right_after_the_signal_counts() -> None:
    signal, changed = Signal(), False
    waiting = asyncio.create_task(signal.until(lambda: changed))
    await settled()
    signal.give()
    changed = True
    await settled()
    assert waiting.done()


async def test_what_a_condition_raises_comes_to_its_own_task() -> None:
    signal, broken = Signal(), False

    def fails() -> bool:
        if broken:
            raise LookupError("not kept any more")
        return False

    failing, waiting = asyncio.create_task(signal.until(fails)), asyncio.create_task(signal.until(lambda: broken))
    await settled()
    broken = True
    signal.give()
    await settled()
    assert waiting.done()
    with pytest.raises(LookupError, match="not kept any more"):
        await failing


async def test_a_cancelled_task_waits_no_more() -> None:
    signal, looks = Signal(), 0

    def never() -> bool:
        nonlocal looks
        looks += 1
        return False

    waiting = asyncio.create_task(signal.until(never))
    await settled()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    signal.give()
    await settled()
    assert looks == 1
