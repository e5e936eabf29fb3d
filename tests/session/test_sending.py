"""Results sent while the next are made: their order, and what becomes of them when something fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from masklet.errors import NotFound
from masklet_server.session.sending import BackgroundSender


class Wire:
    """Sends one message for each permit."""

    def __init__(self, permits: int = 0) -> None:
        self.sent: list[int] = []
        self._permits = asyncio.Semaphore(permits)

    async def send(self, number: int) -> None:
        await self._permits.acquire()
        self.sent.append(number)

    def permit(self) -> None:
        self._permits.release()


async def send_all(*results: Coroutine[None, None, None], error: BaseException | None = None) -> None:
    """Send one after the other, and then fail."""
    async with BackgroundSender() as background:
        for result in results:
            await background.send(result)
        if error is not None:
            raise error


async def test_one_is_sent_while_the_next_is_made_and_no_more() -> None:
    wire = Wire()
    async with BackgroundSender() as background:
        await background.send(wire.send(1))
        second = asyncio.create_task(background.send(wire.send(2)))
        await asyncio.sleep(0.01)
        assert not second.done()
        wire.permit()
        await second
        assert wire.sent == [1]
        wire.permit()
    assert wire.sent == [1, 2]


async def test_a_fault_further_on_does_not_take_back_what_was_made_before_it() -> None:
    wire = Wire(permits=1)
    with pytest.raises(NotFound):
        await send_all(wire.send(1), error=NotFound("the next one"))
    assert wire.sent == [1]


async def test_a_cancellation_does() -> None:
    wire = Wire()
    with pytest.raises(asyncio.CancelledError):
        await send_all(wire.send(1), error=asyncio.CancelledError())
    wire.permit()
    await asyncio.sleep(0.01)
    assert wire.sent == []


async def test_what_sending_raises_is_raised_by_the_next() -> None:
    async def fail() -> None:
        raise ConnectionError("gone")

    wire = Wire(permits=1)
    with pytest.raises(ConnectionError, match="gone"):
        await send_all(fail(), wire.send(2))
    assert wire.sent == []
