"""What a session takes of its client's messages, over several calls."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from masklet.errors import InvalidArgument
from masklet_server.session import events
from masklet_server.session.replies import InputPosition
from masklet_server.session.resuming.inbox import Inbox
from tests.support.session import click


def begun(epoch: int = 1) -> Inbox:
    inbox = Inbox()
    inbox.begin(epoch)
    return inbox


async def take_all(inbox: Inbox) -> list[events.Event]:
    return [event async for event in inbox]


async def test_only_what_fits_in_is_taken() -> None:
    inbox = begun()
    assert await inbox.put(events.VideoChunk(b"abc"), 1)
    second = asyncio.create_task(inbox.put(events.VideoChunk(b"de"), 1))
    await asyncio.sleep(0)
    assert inbox.position == InputPosition("video_bytes", 3, size=3), "the session has not taken the first one yet"
    second.cancel()  # its call broke
    await asyncio.gather(second, return_exceptions=True)
    assert await anext(inbox) == events.VideoChunk(b"abc")
    inbox.begin(2)
    assert await inbox.put(events.VideoChunk(b"de"), 2)
    assert inbox.position == InputPosition("video_bytes", 5, size=5)
    assert await anext(inbox) == events.VideoChunk(b"de")


async def test_a_call_that_has_lost_the_session_puts_nothing_in() -> None:
    inbox = begun()
    await inbox.put(events.VideoChunk(b"abc"), 1)
    waiting = asyncio.create_task(inbox.put(events.VideoChunk(b"old"), 1))
    await asyncio.sleep(0)
    inbox.begin(2)
    assert await waiting is False
    inbox.finish(1)
    inbox.fail(InvalidArgument("x"), 1)
    assert await anext(inbox) == events.VideoChunk(b"abc")
    following = asyncio.create_task(anext(inbox))
    await asyncio.sleep(0.01)
    assert not following.done(), "neither the end nor the failure of the old call counts"
    await inbox.put(events.EndOfVideo(), 2)
    assert await following == events.EndOfVideo()
    assert inbox.position == InputPosition("video_bytes", 3, end_of_video=True, size=3)


async def test_requests_and_the_end_are_taken_once() -> None:
    inbox = begun()
    first, known = replace(click(), request_id=4), replace(click(), request_id=3)
    removal = events.RemoveObject(1, request_id=5)
    said: list[events.Event] = [first, first, known, removal, events.StopPropagation(request_id=5)]
    said += [events.EndOfVideo(), events.EndOfVideo(), events.Ack(3)]

    async def say() -> None:
        for event in said:
            assert await inbox.put(event, 1)
        inbox.finish(1)

    saying = asyncio.create_task(say())
    assert await take_all(inbox) == [first, removal, events.EndOfVideo(), events.Ack(3)]
    await saying
    assert inbox.position == InputPosition(end_of_video=True, request_id=5)


@pytest.mark.parametrize("event", [click(), events.RemoveObject(1), events.Reset(), events.StopPropagation()])
async def test_a_request_without_a_number_is_refused(event: events.Event) -> None:
    inbox = begun()
    await inbox.put(event, 1)
    refused = await anext(inbox)
    assert isinstance(refused, events.Unreadable)
    assert "request_id" in refused.error.message


async def test_the_end_comes_after_what_was_taken() -> None:
    inbox = begun()
    await inbox.put(events.Ack(1), 1)
    inbox.finish(1)
    assert await inbox.put(events.Ack(2), 1) is True, "dropped: nobody takes it any more"
    assert await take_all(inbox) == [events.Ack(1)]
    failing = begun()
    await failing.put(events.Ack(1), 1)
    failing.fail(InvalidArgument("wrong"), 1)
    assert await anext(failing) == events.Ack(1)
    with pytest.raises(InvalidArgument, match="wrong"):
        await anext(failing)
