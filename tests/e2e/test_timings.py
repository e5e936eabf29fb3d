"""Where a frame's time went, over a real channel: clips, pictures and live packets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import masklet
from masklet import FrameResult
from tests.e2e.test_live import follow, packets
from tests.support.e2e import frames, h264, prompt

VIDEOS: dict[str, Callable[[masklet.Client], list[FrameResult]]] = {
    "clip": lambda client: list(client.track(h264(), prompt("box"), timings=True)),
    "pictures": lambda client: list(client.track(list(frames()[:6]), prompt("box"), timings=True)),
    "live frames": lambda client: follow(client, frames()[:6], prompt("box"), timings=True),
    "live packets": lambda client: follow(client, packets(), prompt("box"), timings=True),
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_every_result_carries_them(client: masklet.Client, kind: str) -> None:
    results = VIDEOS[kind](client)
    assert len(results) >= 6
    for frame in results:
        times = frame.timings
        assert times is not None
        for stage in (times.decode, times.queue, times.encode, times.step, times.mask):
            assert 0 < stage < 30
        assert (times.send > 0) == (frame.frame_index > 0)


def test_only_if_asked_for(client: masklet.Client) -> None:
    assert all(frame.timings is None for frame in client.track(h264(), prompt("box")))


async def test_from_asyncio_too(nano_server: str) -> None:
    async with masklet.AsyncClient(nano_server) as client:
        results = [frame async for frame in client.track(h264(), prompt("box"), timings=True)]
    assert all(frame.timings is not None for frame in results)
