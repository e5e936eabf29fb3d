from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from masklet_server.budgets.turns import TooManyWaitingError, Turns


class Crowd:
    """Requests that hold their turns until they are let go, and the order in which they got them."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._go = asyncio.Semaphore(0)

    async def come(self, client: str) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._hold(client))
        self.tasks.append(task)
        await settle()
        return task

    async def end_one(self) -> None:
        self._go.release()
        await settle()

    async def _hold(self, client: str) -> None:
        async with self.turns.turn(client):
            self.order.append(client)
            await self._go.acquire()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def crowd(at_once: int, per_client: int, max_waiting: int | None = None) -> AsyncIterator[Crowd]:
    one = Crowd(Turns(at_once, per_client, max_waiting=max_waiting))
    yield one
    for task in one.tasks:
        task.cancel()
    await asyncio.gather(*one.tasks, return_exceptions=True)
    assert (one.turns.held, one.turns.waiting) == (0, 0)


async def test_so_many_at_once_and_of_one_client() -> None:
    async with crowd(3, 2) as people:
        for client in "aaabb":
            await people.come(client)
        assert people.order == ["a", "a", "b"]
        assert (people.turns.held, people.turns.waiting) == (3, 2)


async def test_clients_come_in_rotation() -> None:
    async with crowd(1, 1) as people:
        for client in "aaaabc":
            await people.come(client)
        for _ in range(5):
            await people.end_one()
        assert people.order == ["a", "a", "b", "c", "a", "a"]


async def test_who_leaves_frees_its_turn_or_its_place() -> None:
    async with crowd(1, 1) as people:
        first, second, _ = [await people.come(client) for client in "abc"]
        second.cancel()
        await settle()
        assert people.turns.waiting == 1
        first.cancel()
        await settle()
        assert people.order == ["a", "c"]


async def test_a_turn_that_comes_with_the_cancellation_is_not_lost() -> None:
    async with crowd(1, 1) as people:
        first, second, _ = [await people.come(client) for client in "abc"]
        first.cancel()  # hands its turn to the second in the same round of the loop in which that is cancelled
        await asyncio.sleep(0)
        second.cancel()
        await settle()
        assert people.order[-1] == "c"


async def test_a_queue_has_an_end() -> None:
    async with crowd(1, 1, max_waiting=32) as people:
        for _ in range(1 + 32):
            await people.come("a")
        task = await people.come("a")
        with pytest.raises(TooManyWaitingError):
            await task
        await people.come("b")
        assert people.turns.waiting == 32 + 1
