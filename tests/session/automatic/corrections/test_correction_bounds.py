"""What bounds corrections: the window, its bytes, credits, and frames that are skipped."""

from __future__ import annotations

import asyncio

from masklet.errors import FailedPrecondition
from masklet_server.masks.encoding import decode
from masklet_server.session import events, replies
from masklet_server.session.events import Delivery
from masklet_server.video.picture import Picture
from tests.support.fakes import FAKE_CORRECTION_BYTES, IMAGE_SIZE, fake_mask
from tests.support.session import (
    ack,
    click,
    finish,
    lines,
    prompted,
    talk,
    video,
    violations,
)

PICTURE = events.NextPicture(Picture("encoded", b"\x01"))
LIVE = events.Configure(live=True)
# The session waits for the client's acks before it ends, so that all frames can be corrected.
PATIENT = events.Configure(correction_window=64)


# Bounds


async def test_beyond_the_window_the_error_says_which_frames_can_be_corrected() -> None:
    async with talk(events.Configure(live=True, correction_window=3)) as client:
        client.say(click(1), *[PICTURE] * 10, events.EndOfVideo())
        await client.frames(10)
        client.say(click(1, 6))
        await client.until(lambda: client.problems)
        assert violations(client) == [["prompt.frame_index"]]
        assert "is 6, which was tracked too long ago to be corrected; frames 7 to 9 can" in client.problems[0]
        assert (
            "Every frame can be corrected in a clip that is sent as a file, and with PROPAGATION_ON_REQUEST"
            in client.problems[0]
        )
        client.say(click(1, 7))
        await client.frames(13)
        await finish(client)
        assert lines(client)[10:] == [(7, 1, [1]), (8, 1, [1]), (9, 1, [1])]


async def test_no_frames_are_kept_for_a_client_that_says_nothing_more() -> None:
    async with talk(LIVE) as client:
        client.say(click(1), *[PICTURE] * 6)
        await client.frames(6)
        window = client.automatic.objects.window
        assert len(window) == 6
        client.say(PICTURE, PICTURE, events.EndOfVideo())
        client.half_close()
        await client.frames(7)
        assert len(window) <= 1
        await client.end()
        assert lines(client) == [(index, 0, [1]) for index in range(8)]


async def test_the_server_bounds_the_window() -> None:
    async with talk(events.Configure(live=True, correction_window=50), correction_window=2) as client:
        client.say(click(1), *[PICTURE] * 6, events.EndOfVideo())
        await client.frames(6)
        client.say(click(1, 3))
        await client.until(lambda: client.problems)
        assert "frames 4 to 5 can" in client.problems[0]
        await finish(client)


async def test_a_frame_may_go_out_of_reach_while_its_correction_waits() -> None:
    async with talk(LIVE, correction_window=2) as client:
        client.say(click(1), PICTURE, PICTURE)
        await client.frames(2)
        await client.quiet()
        client.engine.open_gate.clear()
        client.say(PICTURE)
        await client.until(lambda: client.engine.running)
        client.say(click(1, 0), click(1, 1))
        await client.quiet()
        assert client.problems == []
        client.engine.open_gate.set()
        await client.frames(5)
        client.say(events.EndOfVideo())
        await client.end()
        assert violations(client) == [["prompt.frame_index"]]
        assert lines(client)[3:] == [(1, 1, [1]), (2, 1, [1])]


async def test_corrections_that_are_off_are_late_prompts() -> None:
    async with talk(events.Configure(live=True, correction_window=5), correction_window=0) as client:
        client.say(click(1), PICTURE, PICTURE)
        await client.frames(2)
        client.say(click(1, 0), events.EndOfVideo())
        await client.end()
        (problem,) = client.all(replies.Problem)
        assert isinstance(problem.error, FailedPrecondition)
        assert "too late for frame 0, which is tracked already; frame 2 is the next" in problem.error.message
        assert len(client.automatic.objects.window) == 0
        assert client.engine.banks[0].correctable == set()


async def test_the_window_shrinks_so_that_its_bytes_hold() -> None:
    pixels = IMAGE_SIZE * IMAGE_SIZE * 3
    most = 10 * (pixels + FAKE_CORRECTION_BYTES)
    async with talk(LIVE, correction_bytes=most) as client:

        def held() -> int:
            banks = [client.engine.banks[i] for i in range(len(client.automatic.objects))]
            return client.automatic.objects.window.nbytes + sum(bank.correction_nbytes for bank in banks)

        client.say(click(1), *[PICTURE] * 30)
        await client.frames(30)
        await client.quiet()
        assert len(client.automatic.objects.window) == 10
        for object_id in range(2, 8):
            client.say(events.PromptObject(click(object_id).prompt, on_next_frame=True))
        client.say(*[PICTURE] * 20)
        await client.frames(50)
        await client.quiet()
        # Seven objects: each frame of the window costs its pixels and seven times the part of a bank.
        assert len(client.automatic.objects.window) == most // (pixels + 7 * FAKE_CORRECTION_BYTES) == 5
        assert held() <= most
        assert all(len(bank.correctable) == 5 for bank in client.engine.banks)
        for object_id in range(2, 8):
            client.say(events.RemoveObject(object_id))
        client.say(ack(client), *[PICTURE] * 10)
        await client.frames(60)
        await client.quiet()
        assert len(client.automatic.objects.window) == 10, "what is freed is used again"
        client.say(click(1, 50))
        await client.frames(70)
        client.say(events.EndOfVideo())
        await client.end()
        assert client.problems == []


async def test_the_window_is_empty_if_not_even_one_frame_fits() -> None:
    async with talk(LIVE, correction_bytes=10) as client:
        client.say(click(1), *[PICTURE] * 3)
        await client.frames(3)
        await client.quiet()
        client.say(click(1, 2), events.EndOfVideo())
        await client.end()
        assert "none can" in client.problems[0]


async def test_everything_is_freed_with_the_session() -> None:
    async with talk(LIVE) as client:
        client.say(click(1), *[PICTURE] * 4)
        await client.frames(4)
        client.engine.open_gate.clear()
        client.say(click(1, 1))
        await client.until(lambda: client.engine.running)
        client.task.cancel()
        await asyncio.gather(client.task, return_exceptions=True)
        assert len(client.automatic.objects.window) == 0
        assert not client.automatic.objects
        assert not client.automatic.tracker.corrections.under_way


async def test_corrections_take_credits_and_wait_for_acks() -> None:
    async with talk(events.Configure(window=2, correction_window=64)) as client:
        client.say(click(1), *video(6))
        for count in (2, 4, 6):
            await client.frames(count)
            client.say(ack(client))
        client.say(click(1, 2))
        await client.frames(8)
        await client.quiet()
        assert len(lines(client)) == 8, "two of four, as many as the window takes"
        client.say(ack(client))
        await client.frames(10)
        await finish(client)
        assert lines(client)[6:] == [(i, 1, [1]) for i in (2, 3, 4, 5)]


async def test_pictures_that_wait_do_not_keep_acks_from_being_read() -> None:
    """As many as the window reaches may come, and before the acks that let a correction go on."""
    async with talk(events.Configure(window=8, frame_count=40, correction_window=64)) as client:
        client.say(click(1), *[PICTURE] * 8)
        for count in (8, 16, 24):
            await client.frames(count)
            client.say(ack(client), *[PICTURE] * (8 if count < 24 else 0))
        client.say(click(1, 4), *[PICTURE] * 8)  # 20 frames to send again
        for count in (32, 40, 48, 52):
            await client.frames(count)
            client.say(ack(client))
        client.say(*[PICTURE] * 8, events.EndOfVideo())
        await client.frames(60)
        await finish(client)
        assert [line[:2] for line in lines(client)] == [
            *[(i, 0) for i in range(24)],
            *[(i, 1) for i in range(4, 24)],
            *[(i, 0) for i in range(24, 40)],
        ]


# Skipped frames


async def test_a_correction_for_a_skipped_frame_goes_to_the_next_one_that_was_tracked() -> None:
    config = events.Configure(delivery=Delivery.LATEST, max_latency_seconds=0.001)
    async with talk(config) as client:
        client.say(click(1), PICTURE)
        await client.frames(1)
        client.engine.open_gate.clear()
        client.say(PICTURE)
        await client.until(lambda: client.engine.running)
        client.say(*[PICTURE] * 4)
        await client.quiet()
        client.engine.open_gate.set()
        first, second, third = await client.frames(3)
        assert third.skipped == (2, 3, 4)
        assert (third.frame_index, client.engine.jobs[-1].frame.index) == (5, 2), "to memory it is the third"
        client.say(click(1, 3))
        await client.frames(4)
        client.say(events.EndOfVideo())
        await client.end()
        assert prompted(client)[-1] == (5, 1)
        assert [line[:2] for line in lines(client)] == [(0, 0), (1, 0), (5, 0), (5, 1)]
        assert client.all(replies.FrameResult)[-1].skipped == ()
        assert (first.frame_index, second.frame_index) == (0, 1)


async def test_while_something_is_corrected_the_latest_frames_go_on_coming_and_old_ones_are_skipped() -> None:
    config = events.Configure(delivery=Delivery.LATEST, max_latency_seconds=0.001)
    async with talk(config) as client:
        for count in range(1, 5):
            client.say(*([click(1)] if count == 1 else []), PICTURE)
            await client.frames(count)
        client.engine.open_gate.clear()
        client.say(click(1, 1))
        await client.until(lambda: client.engine.running)
        client.say(*[PICTURE] * 6)
        await client.quiet()
        client.engine.open_gate.set()
        await client.frames(8)
        client.say(events.EndOfVideo())
        await client.end()
        assert [line[:2] for line in lines(client)[4:]] == [(1, 1), (2, 1), (3, 1), (9, 0)]
        last = client.all(replies.FrameResult)[-1]
        assert last.skipped == (4, 5, 6, 7, 8)
        assert (decode(last.objects[0].mask) == fake_mask(0, 4, corrections=1)).all(), "to memory it is the fifth"
        assert client.engine.banks[0].frames == [0, 1, 2, 3, 4]
