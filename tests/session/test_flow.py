"""Whatever the order in which a client sends, reads and acknowledges, it gets its results, or is told what is wrong."""

from __future__ import annotations

import asyncio

import pytest

from masklet.errors import InvalidArgument, ResourceExhausted
from masklet_server.session import events, replies, sending
from masklet_server.session.automatic import frame_reader
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture
from tests.support.fake_sources import FakePictures
from tests.support.session import ON_REQUEST, PATIENCE, Talk, answers, click, talk, video

PICTURE = events.NextPicture(Picture("encoded", b"x"))
PACKET = events.NextPacket(Packet(b"x", "h264"))
LIVE = events.Configure(delivery=events.Delivery.LATEST, max_latency_seconds=60)
SHORT = 0.1


async def acknowledge_each(client: Talk, frames: int) -> None:
    """Acknowledge every result when it comes, and see the session end."""
    for count in range(1, frames + 1):
        client.say(events.Ack((await client.frames(count))[-1].sequence))
    await client.end()


def indices(client: Talk) -> list[int]:
    return [result.frame_index for result in client.all(replies.FrameResult)]


# Half-closing after end_of_video


@pytest.mark.parametrize("said", [[events.VideoChunk(bytes(40))], [PICTURE] * 40], ids=["file", "pictures"])
@pytest.mark.parametrize("config", [events.Configure(), events.Configure(correction_window=4)])
async def test_who_half_closes_need_not_acknowledge(said: list[events.Event], config: events.Configure) -> None:
    async with talk(config, window=3) as client:
        client.say(click(), *said, events.EndOfVideo())
        client.half_close()
        await client.end()
        assert indices(client) == list(range(40))
        assert client.all(replies.Done) == [replies.Done(40)]
        assert client.problems == []


async def test_half_closing_late_lets_everything_go() -> None:
    async with talk(window=3) as client:
        client.say(click(), *video(40))
        await client.frames(3)
        await client.quiet()
        assert len(indices(client)) == 3, "until then the window is kept"
        client.half_close()
        await client.end()
        assert indices(client) == list(range(40))


async def test_live_frames_flow_after_half_closing() -> None:
    async with talk(LIVE, window=3) as client:
        client.say(click(), *[PICTURE] * 10, events.EndOfVideo())
        client.half_close()
        await client.end()
        assert indices(client) == list(range(10))


async def test_packets_flow_after_half_closing() -> None:
    async with talk(window=3) as client:
        client.say(click(), *[PACKET] * 40, events.EndOfVideo())
        client.half_close()
        await client.end()
        assert indices(client) == list(range(40))


async def test_the_engine_does_not_run_ahead_of_a_client_that_half_closes_and_does_not_read() -> None:
    async with talk(window=3) as client:
        client.say(click(), *[PICTURE] * 100, events.EndOfVideo())
        client.half_close()
        client.reading.clear()
        await asyncio.sleep(0.5)
        assert len(client.engine.jobs) <= 3, "one is sent, one is made"
        client.reading.set()
        await client.end()
        assert indices(client) == list(range(100))


# Pictures before acknowledgements


@pytest.mark.parametrize("one", [PICTURE, PACKET], ids=["pictures", "packets"])
async def test_acknowledgements_behind_all_of_the_video_are_seen(one: events.Event) -> None:
    async with talk(window=8) as client:
        client.say(click(), *[one] * 400, events.EndOfVideo())
        await acknowledge_each(client, 400)
        assert indices(client) == list(range(400))


@pytest.mark.parametrize("half_closes", [True, False])
async def test_a_client_may_read_when_it_has_sent_everything(half_closes: bool) -> None:
    async with talk() as client:
        await client.until(lambda: client.responses)
        client.reading.clear()
        client.say(click(), *[PICTURE] * 400, events.EndOfVideo())
        await client.until(lambda: client.sources.made and client.source.fed == 400)
        assert len(client.engine.jobs) < 5
        if half_closes:
            client.half_close()
        client.reading.set()
        if half_closes:
            await client.end()
        else:
            await acknowledge_each(client, 400)
        assert indices(client) == list(range(400))


async def test_who_sends_too_fast_waits_as_long_as_results_flow() -> None:
    async with talk() as client:
        client.engine.open_gate.clear()
        client.say(click(), *[PICTURE] * 400)
        await client.until(lambda: client.engine.jobs)
        await asyncio.sleep(0.5)
        assert client.source.fed < 40, "the engine works, and no result waits for the client"
        client.engine.open_gate.set()


async def test_too_many_pictures_before_the_acknowledgement_end_the_session_at_once() -> None:
    async with talk(window=4) as client:
        client.say(click(), PICTURE)
        await client.until(lambda: client.sources.made)
        source = client.source
        assert isinstance(source, FakePictures)
        source.max_waiting = 50
        client.say(*[PICTURE] * 400)
        with pytest.raises(ResourceExhausted, match="50 pictures wait"):
            await asyncio.wait_for(client.end(), 2)
        assert source.closed


async def test_a_client_that_waits_for_each_result_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_reader, "PAUSE_SECONDS", SHORT)
    async with talk() as client:
        client.say(click())
        for count in range(1, 6):
            client.say(PICTURE)
            client.say(events.Ack((await client.frames(count))[-1].sequence))
        client.say(events.EndOfVideo())
        await client.end()


async def test_errors_that_nobody_reads_do_not_keep_the_session_from_reading() -> None:
    async with talk(window=4) as client:
        await client.until(lambda: client.responses)
        client.reading.clear()
        client.say(*[events.RemoveObject(9)] * 100, click(), *[PICTURE] * 100, events.EndOfVideo())
        client.half_close()
        await client.until(lambda: client.sources.made and client.source.fed == 100)
        client.reading.set()
        await client.end()
        assert len(client.problems) == 100
        assert indices(client) == list(range(100))
        assert isinstance(client.responses[-1], replies.Done)


# No acknowledgement at all


def reminders(client: Talk) -> list[InvalidArgument]:
    found = [problem.error for problem in client.all(replies.Problem)]
    return [error for error in found if isinstance(error, InvalidArgument) and error.violations[0].field == "ack"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (events.Configure(), video(40)),
        (events.Configure(), [events.VideoChunk(bytes(40))]),
        (events.Configure(), [PICTURE] * 40),
        (events.Configure(), [PACKET] * 40),
        (LIVE, [PICTURE] * 40),
        (ON_REQUEST, [*video(40), events.Propagate()]),
    ],
    ids=["file", "file without end", "pictures", "packets", "live", "annotation"],
)
async def test_a_client_that_never_acknowledges_is_told_so(
    config: events.Configure, said: list[events.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "REMIND_SECONDS", SHORT)
    async with talk(config, window=4) as client:
        client.say(click(), *said)
        await client.until(lambda: client.problems)
        await asyncio.sleep(5 * SHORT)
        (error,) = reminders(client)
        assert "the window of 4 frame results is full" in error.message
        assert "send ack with the sequence" in error.message
        assert "half-close after end_of_video" in error.message
        client.say(events.Ack(client.all(replies.FrameResult)[-1].sequence))
        await client.frames(8)


async def test_a_live_stream_that_goes_on_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "REMIND_SECONDS", SHORT)
    async with talk(events.Configure(live=True), window=4) as client:
        client.say(click())
        for _ in range(60):
            client.say(PICTURE)
            await asyncio.sleep(SHORT / 10)
        assert len(reminders(client)) == 1


@pytest.mark.slow
async def test_a_client_that_still_sends_its_video_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "REMIND_SECONDS", 1.5)
    async with talk(window=4) as client:
        client.say(click())
        for _ in range(40):
            client.say(PICTURE)
            await asyncio.sleep(0.05)
        assert client.problems == []
        await client.until(lambda: client.problems)
        assert len(reminders(client)) == 1


@pytest.mark.parametrize("how", ["ack", "half-close", "correction window"])
async def test_who_knows_of_acknowledgements_is_not_reminded(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "REMIND_SECONDS", SHORT)
    config = events.Configure(correction_window=2 if how == "correction window" else 0)
    async with talk(config, window=4) as client:
        client.say(click(), *video(40))
        if how == "ack":
            client.say(events.Ack((await client.frames(4))[0].sequence))
            await client.frames(5)
        elif how == "half-close":
            client.half_close()
        await asyncio.sleep(5 * SHORT)
        assert client.problems == []


async def test_annotation_answers_and_errors_keep_their_order() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(20), click(), events.Unreadable(InvalidArgument.of("prompt", "bad"), request_id=7))
        given = await asyncio.wait_for(answers(client, 2), PATIENCE)
        assert [type(one) for one in given] == [replies.PromptResult, replies.Answer]
