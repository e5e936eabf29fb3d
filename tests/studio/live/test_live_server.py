"""The server of a live session goes away and comes back: the camera is seen, and tracking goes on by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from masklet_server.embedded import EmbeddedServer
from tests.support import streams
from tests.support.live import LOOP, begin, look_at
from tests.support.rtsp import RtspServer
from tests.support.studio import running_studio

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def _server(port: int) -> Iterator[str]:
    with EmbeddedServer(address=f"127.0.0.1:{port}", device="cpu", dtype="float32") as address:
        yield address


def test_tracking_goes_on_by_itself_after_the_server_was_away(tmp_path: Path) -> None:
    port = streams.free_port()
    with (
        RtspServer([LOOP[8]] * 8, rate=8) as camera,
        running_studio(tmp_path / "work", server=f"127.0.0.1:{port}") as studio,
        look_at(studio, begin(studio, source=camera.url)) as page,
    ):
        page.wait("status", lambda status: status["state"] == "running" and not status["server"])
        assert not page.look()[-1].masks, "the camera is seen without a server"
        page.do("add_object")
        assert page.click(0)["pending"], "the click is kept"
        with _server(port):
            before = page.until(lambda shown: 1 in shown.masks).masks[1]
        gone = page.wait("status", lambda status: not status["server"])
        assert gone["server_message"]
        page.until(lambda shown: not shown.masks)
        with _server(port):
            after = page.until(lambda shown: 1 in shown.masks).masks[1]
        assert before.area == pytest.approx(after.area, rel=0.1)
