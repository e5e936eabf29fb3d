"""Requests that a browser gives up."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from masklet_studio.app import application
from masklet_studio.guard import Access
from masklet_studio.studio import Studio


class SlowStudio:
    """Gives frame 0 at once, and every other one never."""

    def __init__(self) -> None:
        self.given_up: list[int] = []

    async def frame(self, _video: str, index: int, _width: int) -> bytes:
        try:
            if index:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up.append(index)
            raise
        return b"a picture"


async def ask(studio: SlowStudio, index: int) -> list[dict[str, Any]]:
    """Ask for a frame, and give it up as soon as nothing else happens; what was answered."""
    said: list[dict[str, Any]] = []
    heard = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if heard:
            return heard.pop()
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http", "method": "GET", "path": f"/videos/v/frames/{index}", "root_path": "", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8080")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
    }  # fmt: skip
    app = application(cast("Studio", studio), Access("127.0.0.1", ""))
    await asyncio.wait_for(app(scope, receive, send), 10)
    return said


async def test_a_frame_that_the_browser_has_given_up_is_cancelled() -> None:
    studio = SlowStudio()
    given_up = await ask(studio, 3)
    assert studio.given_up == [3]
    assert given_up[0]["status"] == 400


async def test_a_frame_that_is_waited_for_is_given() -> None:
    studio = SlowStudio()
    start, body = await ask(studio, 0)
    assert (start["status"], body["body"]) == (200, b"a picture")
    assert (b"content-type", b"image/jpeg") in start["headers"]
    assert studio.given_up == []
