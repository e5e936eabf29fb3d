"""When a server in the studio's own process is started: after the first picture, so that it takes no time from it."""

from __future__ import annotations

import asyncio

import pytest

from masklet import AsyncClient
from masklet.errors import FailedPrecondition
from masklet_studio.server_link import ServerLink


class Starts:
    """Counts how often a server was started and ended."""

    def __init__(self) -> None:
        self.started = self.ended = 0

    def start(self) -> AsyncClient:
        self.started += 1
        return AsyncClient("127.0.0.1:1", secure=False)

    def end(self) -> None:
        self.ended += 1


async def test_it_waits_for_the_first_picture() -> None:
    server = Starts()
    link = ServerLink(server.start, server.end, hold_seconds=60)
    link.begin()
    asked = asyncio.ensure_future(link.client())
    await asyncio.sleep(0.1)
    assert (server.started, link.is_there) == (0, False)
    link.picture_is_there()
    assert isinstance(await asyncio.wait_for(asked, 10), AsyncClient)
    assert (server.started, link.is_there) == (1, True)
    await link.close()
    assert server.ended == 1


async def test_it_does_not_wait_for_ever() -> None:
    server = Starts()
    link = ServerLink(server.start, hold_seconds=0.05)
    await asyncio.wait_for(link.client(), 10)
    assert server.started == 1
    await link.close()


async def test_a_server_elsewhere_is_not_waited_for() -> None:
    server = Starts()
    link = ServerLink(server.start)
    await asyncio.wait_for(link.client(), 10)
    await link.close()


async def test_a_studio_that_ends_before_starts_no_server() -> None:
    server = Starts()
    link = ServerLink(server.start, server.end, hold_seconds=60)
    link.begin()
    await asyncio.sleep(0)
    await asyncio.wait_for(link.close(), 10)
    assert server.started == 0
    with pytest.raises(FailedPrecondition, match="the studio is closed"):
        await link.client()
