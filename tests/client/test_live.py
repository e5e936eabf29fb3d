"""`Live` and `AsyncLive` against a scripted server on real loopback gRPC; `tests/e2e/test_live.py` has a real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

import masklet
from masklet.v1 import tracking_pb2
from tests.support.fake_script import HEIGHT, WIDTH, Script
from tests.support.fake_server import FakeServer

CLICK = masklet.Prompt(object_id=3, point_coords=[[20, 20]])
LATER = masklet.Prompt(object_id=5, frame_index=6, point_coords=[[9, 9]])
FRAME = np.zeros((HEIGHT, WIDTH), np.uint8)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Script(window=8)) as running:
        yield running


def said(server: FakeServer) -> list[tracking_pb2.TrackRequest]:
    """What the client sent of prompts and removals."""
    (session,) = server.sessions
    return [m for m in session.messages if m.WhichOneof("request") in ("prompt", "remove_object", "clear_prompts")]


def test_frames_that_are_sent_come_back_as_results(server: FakeServer) -> None:
    with masklet.Client(server.address) as client, client.live(CLICK, delivery="lossless") as live:
        for _ in range(3):
            live.send(FRAME)
        live.end()
        live.end()
        assert [frame.frame_index for frame in live] == [0, 1, 2]
    config = server.sessions[0].config
    assert (config.live, config.delivery) == (True, tracking_pb2.DELIVERY_LOSSLESS)
    assert [bool(picture.capture_time_nanoseconds) for picture in server.sessions[0].frames] == [True] * 3


def test_the_same_awaited(server: FakeServer) -> None:
    async def run() -> list[int]:
        async with masklet.AsyncClient(server.address) as client, client.live(CLICK, delivery="lossless") as live:
            for _ in range(3):
                await live.send(FRAME)
            live.prompt(LATER)
            live.end()
            return [frame.frame_index async for frame in live]

    assert asyncio.run(run()) == [0, 1, 2]
    assert said(server)[-1].prompt.on_next_frame


def test_a_prompt_is_for_the_next_frame_or_a_named_one(server: FakeServer) -> None:
    with masklet.Client(server.address) as client, client.live() as live:
        live.prompt(LATER)
        live.prompt(LATER, frame_index=4)
        live.remove_object(5)
        live.clear_prompts(5, 4)
        live.send(FRAME)
        live.end()
        assert len(list(live)) == 1
    following, named, removed, cleared = said(server)
    assert following.prompt.on_next_frame
    assert (named.prompt.frame_index, named.prompt.on_next_frame) == (4, False)
    assert removed.remove_object.object_id == 5
    assert (cleared.clear_prompts.object_id, cleared.clear_prompts.frame_index) == (5, 4)


def test_the_older_names_still_work(server: FakeServer) -> None:
    with masklet.Client(server.address) as client, client.live() as live:
        live.add_prompt(LATER)
        live.remove(5)
        live.send(FRAME)
        live.end()
        assert len(list(live)) == 1
    prompted, removed = said(server)
    assert (prompted.prompt.frame_index, prompted.prompt.on_next_frame) == (6, False), "it goes by the prompt's frame"
    assert removed.remove_object.object_id == 5


def test_the_older_names_still_work_awaited(server: FakeServer) -> None:
    async def run() -> None:
        client = masklet.AsyncClient(server.address)
        async with contextlib.aclosing(client), contextlib.aclosing(client.live()) as live:
            live.add_prompt(LATER)
            live.remove(5)
            await live.send(FRAME)
            live.end()
            assert len([frame async for frame in live]) == 1
        with pytest.raises(masklet.FailedPrecondition, match="closed"):
            client.live()

    asyncio.run(run())
    assert [m.WhichOneof("request") for m in said(server)] == ["prompt", "remove_object"]


def test_nothing_can_be_sent_after_the_end(server: FakeServer) -> None:
    with masklet.Client(server.address) as client, client.live() as live:
        live.end()
        with pytest.raises(masklet.FailedPrecondition, match="nothing more can be sent"):
            live.send(FRAME)


def test_closing_ends_iteration_and_sending(server: FakeServer) -> None:
    with masklet.Client(server.address) as client:
        live = client.live()
        live.close()
        live.close()
        assert list(live) == []
        with pytest.raises(masklet.FailedPrecondition, match="nothing more can be sent"):
            live.send(FRAME)
