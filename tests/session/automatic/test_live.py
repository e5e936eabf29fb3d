"""Live sessions: no look-ahead, frames of any size, packets, and delivery of the latest frames alone."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import cast

import numpy as np
import pytest

from masklet.errors import DataLoss, DeadlineExceeded, FailedPrecondition, InvalidArgument
from masklet.prompts import Prompt
from masklet_server.session import events, replies
from masklet_server.session.events import Delivery
from masklet_server.session.prompts import GivenPrompt
from masklet_server.video.frame import Frame
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture
from tests.support.fake_sources import BROKEN, FakeLatestPictures
from tests.support.session import Talk, click, ids, talk

PICTURE = events.NextPicture(Picture("encoded", b"\x01"))
PACKET = events.NextPacket(Packet(b"\x01", "h264"))
LATEST = events.Configure(delivery=Delivery.LATEST, max_latency_seconds=0.02)


def now(object_id: int = 1) -> events.PromptObject:
    """A click on whichever frame comes next."""
    return events.PromptObject(GivenPrompt(Prompt(object_id, point_coords=[(5, 5)])), on_next_frame=True)


# No look-ahead


@pytest.mark.parametrize(
    ("config", "video"),
    [(events.Configure(live=True), PICTURE), (events.Configure(), PACKET), (LATEST, PICTURE)],
    ids=["live", "packets", "latest"],
)
async def test_the_first_frame_of_a_live_stream_is_tracked_at_once(
    config: events.Configure, video: events.Event
) -> None:
    async with talk(config) as client:
        client.say(click(), video)
        await client.frames(1)
        assert client.engine.jobs[0].frame.clip_length is None
        client.say(events.EndOfVideo())
        await client.end()
        assert client.engine.jobs[0].frame.clip_length is None
        assert client.all(replies.Done) == [replies.Done(1)]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"live": True, "frame_count": 3}, "config.frame_count"),
        ({"delivery": Delivery.LATEST, "frame_count": 3}, "config.frame_count"),
        ({"max_latency_seconds": 1.0}, "config.max_latency_seconds"),
        ({"delivery": Delivery.LATEST, "max_latency_seconds": -1.0}, "config.max_latency_seconds"),
        ({"delivery": Delivery.LATEST, "max_latency_seconds": float("nan")}, "config.max_latency_seconds"),
    ],
)
def test_options_that_contradict_one_another(options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        events.Configure(**options)  # type: ignore[arg-type]
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (PACKET, PICTURE, "frame"),
        (PICTURE, PACKET, "packet"),
        (PACKET, events.VideoChunk(b"\x01"), "video_chunk"),
    ],
)
async def test_kinds_of_video_do_not_mix(first: events.Event, second: events.Event, field: str) -> None:
    async with talk(events.Configure(live=True)) as client:
        client.say(first, second)
        with pytest.raises(InvalidArgument) as caught:
            await client.end()
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_packets_have_no_known_count() -> None:
    async with talk(events.Configure(frame_count=3)) as client:
        client.say(PACKET)
        with pytest.raises(InvalidArgument, match="frame_count"):
            await client.end()


# Sizes


async def put(client: Talk, height: int, width: int) -> None:
    """A frame of that size."""
    source = client.source
    pixels = np.zeros((source.image_size, source.image_size, 3), np.uint8)
    await source.put_frame(Frame(source.fed, 0, Fraction(1), pixels, height, width))


async def test_masks_have_the_size_of_their_frame_and_prompts_are_held_against_it() -> None:
    async with talk(events.Configure(live=True)) as client:
        client.say(click(), PICTURE)
        await client.frames(1)
        client.say(click(2, 1, (60, 40)), click(3, 1, (10, 10)))
        await client.quiet()
        await put(client, 30, 20)
        results = await client.frames(2)
        assert [(o.mask.height, o.mask.width) for o in results[0].objects] == [(48, 64)]
        assert [(o.object_id, o.mask.height, o.mask.width) for o in results[1].objects] == [(1, 30, 20), (3, 30, 20)]
        (problem,) = client.problems
        assert "prompt" in problem
        client.say(click(4, 2, (60, 40)))
        await client.until(lambda: len(client.problems) == 2)


# Prompts for the next frame


async def test_a_prompt_for_the_next_frame() -> None:
    async with talk(events.Configure(live=True)) as client:
        client.say(PICTURE, PICTURE)
        await client.frames(2)
        client.say(now(), PICTURE)
        results = await client.frames(3)
        assert [ids(result) for result in results] == [[], [], [1]]
        (answer,) = client.all(replies.PromptResult)
        assert answer.frame_index == 2
        assert client.problems == []


# The latest frames alone


async def fed(client: Talk, count: int) -> None:
    """Wait until that many pictures have reached the source."""
    await client.until(lambda: client.sources.made and cast("FakeLatestPictures", client.source).fed == count)


async def test_frames_that_waited_too_long_are_skipped_and_named() -> None:
    async with talk(LATEST) as client:
        client.engine.open_gate.clear()
        client.say(click(), PICTURE)
        await client.until(lambda: client.engine.running)
        client.say(*[PICTURE] * 20)
        await fed(client, 21)
        await asyncio.sleep(0.05)
        client.engine.open_gate.set()
        results = await client.frames(2)
        client.say(events.EndOfVideo())
        await client.end()
        results = client.all(replies.FrameResult)
        assert results[0].frame_index == 0
        named = sorted(i for result in results for i in (*result.skipped, result.frame_index))
        assert named == list(range(21)), "each frame has a result or is named as skipped, once"
        assert results[1].skipped[0] == 1
        assert results[-1].frame_index == 20, "the newest is never skipped"
        # The bank knows consecutive numbers alone; the fake engine refuses anything else.
        assert [job.frame.index for job in client.engine.jobs] == list(range(len(results)))
        assert client.all(replies.Done) == [replies.Done(len(results))], "frames tracked"
        assert results[0].latency_seconds > 0


async def test_a_slow_tracker_never_keeps_the_client_from_being_read() -> None:
    async with talk(LATEST, window=1) as client:
        client.engine.open_gate.clear()
        client.say(click(), PICTURE)
        await client.until(lambda: client.engine.running)
        client.say(*[PICTURE] * 299, events.RemoveObject(7))
        await client.until(lambda: client.problems)
        await fed(client, 300)
        await asyncio.sleep(0.05)
        client.engine.open_gate.set()
        await client.frames(1)
        client.say(events.Ack(2))
        (_, second) = await client.frames(2)
        assert second.frame_index == 299


async def test_a_prompt_for_a_skipped_frame_is_applied_on_the_next_one() -> None:
    async with talk(LATEST) as client:
        client.engine.open_gate.clear()
        client.say(click(1), click(2, 3), click(3, 5), PICTURE)
        await client.until(lambda: client.engine.running)
        client.say(*[PICTURE] * 9)
        await fed(client, 10)
        await asyncio.sleep(0.05)
        client.engine.open_gate.set()
        results = await client.frames(2)
        assert (results[1].frame_index, ids(results[1])) == (9, [1, 2, 3])
        assert [(p.frame_index, p.object.object_id) for p in client.all(replies.PromptResult)] == [
            (0, 1),
            (9, 2),
            (9, 3),
        ]


@pytest.mark.parametrize("reads", [False, True], ids=["never reads", "never acknowledges"])
async def test_a_client_that_takes_nothing_is_let_go_though_it_sends_for_ever(reads: bool) -> None:
    async with talk(LATEST, window=1, idle_timeout_seconds=0.3) as client:
        client.say(click())
        if not reads:
            await client.until(lambda: client.all(replies.Opened))
            client.reading.clear()

        async def send() -> None:
            while True:
                client.say(PICTURE)
                await asyncio.sleep(0.01)

        sending = asyncio.create_task(send())
        try:
            with pytest.raises(DeadlineExceeded, match="an ack" if reads else "to read its responses"):
                await client.end()
        finally:
            sending.cancel()
        assert client.source.closed


async def test_a_fault_comes_after_the_frames_before_it() -> None:
    async with talk(LATEST) as client:
        client.say(click(), PICTURE, PICTURE, events.NextPicture(Picture("encoded", bytes([BROKEN]))))
        with pytest.raises(DataLoss):
            await client.end()
        assert [result.frame_index for result in client.all(replies.FrameResult)][-1] == 1


# Videos that the server fetches


async def test_a_video_is_fetched_once_the_client_has_said_all() -> None:
    async with talk(events.Configure(source_url="fake://host/20")) as client:
        client.say(click())
        await client.quiet()
        assert client.sources.made == []
        client.say(click(2), events.EndOfVideo())
        client.half_close()
        await client.end()
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1, 2]] * 20


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        ([PICTURE], InvalidArgument, "frame: cannot follow source_url"),
        ([events.EndOfVideo(), events.EndOfVideo()], FailedPrecondition, "twice"),
    ],
)
async def test_nothing_else_is_taken_beside_it(said: list[events.Event], error: type[Exception], match: str) -> None:
    async with talk(events.Configure(source_url="fake://host/2")) as client:
        client.engine.open_gate.clear()
        client.say(click(), *said)
        with pytest.raises(error, match=match):
            await client.end()
