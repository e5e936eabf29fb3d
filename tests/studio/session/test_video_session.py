"""While the model is being loaded, a click is told so, kept, and answered when the model is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from masklet import AsyncClient
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.server_link import ServerLink
from masklet_studio.session.video_session import VideoSession, open_board
from tests.support import e2e
from tests.support.studio import records

pytestmark = pytest.mark.slow
SECONDS = 60.0


class Tab:
    """A tab's end of the WebSocket."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[str] = asyncio.Queue()
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._number = 0

    async def receive(self) -> dict[str, Any]:
        return {"type": "websocket.receive", "text": await self._asked.get()}

    async def send_text(self, data: str) -> None:
        self._heard.put_nowait(json.loads(data))

    async def send_bytes(self, data: bytes) -> None:
        for record in records(data):
            self._heard.put_nowait({"event": "mask", "object": record.object_id, "area": record.area})

    async def wait(self, event: str) -> dict[str, Any]:
        """The next event of this name."""
        while (heard := await asyncio.wait_for(self._heard.get(), SECONDS))["event"] != event:
            pass
        return heard

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        self._asked.put_nowait(json.dumps({"id": self._number, "do": do, **fields}))
        return await self.wait("reply")


@pytest.fixture
async def link(nano_server: str) -> AsyncIterator[ServerLink]:
    """A server that is there once `picture_is_there` was called."""
    link = ServerLink(lambda: AsyncClient(nano_server, secure=False), hold_seconds=10 * SECONDS)
    link.begin()
    yield link
    await link.close()


@pytest.fixture
async def tab(link: ServerLink, tmp_path: Path) -> AsyncIterator[Tab]:
    """A tab that looks at a short clip."""
    path = tmp_path / "clip.mkv"
    path.write_bytes(e2e.lossless())
    facts = VideoFacts(e2e.WIDTH, e2e.HEIGHT, 25.0, tuple(n / 25 for n in range(e2e.NUM_FRAMES)))
    (tmp_path / "project").mkdir()
    session = VideoSession(open_board(tmp_path / "project", facts, {}), link, path, "")
    tab = Tab()
    serving = asyncio.create_task(session.serve(tab))
    yield tab
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await session.close()


async def test_what_is_clicked_meanwhile_is_kept_and_its_mask_comes(link: ServerLink, tab: Tab) -> None:
    assert (await tab.wait("loading"))["loading"] is True
    for blob in (0, 1):
        one = (await tab.ask("add_object"))["object"]
        click = [[*e2e.center(blob), 1]]
        reply = await tab.ask("prompt", object=one, frame=0, points=click, box=None, mask=None)
        assert (reply["ok"], reply["pending"]) == (True, True)
    assert (await tab.ask("change_object", object=1, name="ball"))["ok"]
    link.picture_is_there()
    for one in (1, 2):
        mask = await tab.wait("mask")
        assert mask["object"] == one
        assert mask["area"] == pytest.approx(e2e.truth(one - 1).sum(), rel=0.3)
    assert (await tab.wait("loading"))["loading"] is False


async def test_a_click_whose_later_one_is_undone_gets_its_mask_in_the_end(link: ServerLink, tab: Tab) -> None:
    one = (await tab.ask("add_object"))["object"]
    click = [*e2e.center(0), 1]
    await tab.ask("prompt", object=one, frame=0, points=[click], box=None, mask=None)
    await tab.ask("prompt", object=one, frame=0, points=[click, [*e2e.center(1), 1]], box=None, mask=None)
    link.picture_is_there()
    assert (await tab.wait("mask"))["object"] == one  # of both clicks
    assert (await tab.ask("undo"))["did"] == "prompt"
    mask = await tab.wait("mask")
    assert mask["object"] == one
    assert mask["area"] == pytest.approx(e2e.truth(0).sum(), rel=0.3)


async def test_a_run_that_is_asked_for_meanwhile_begins_when_the_model_is_there(link: ServerLink, tab: Tab) -> None:
    one = (await tab.ask("add_object"))["object"]
    await tab.ask("prompt", object=one, frame=0, points=[[*e2e.center(0), 1]], box=None, mask=None)
    assert (await tab.ask("track", **{"direction": "forward", "objects": None, "from": 0}))["ok"]
    link.picture_is_there()
    while (told := await tab.wait("tracking"))["running"]:
        pass
    assert (told["error"], told["frame"]) == (None, e2e.NUM_FRAMES - 1)
