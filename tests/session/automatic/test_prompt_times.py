"""Prompts that name a time, of a video with a frame every 40 ms."""

from __future__ import annotations

import pytest

from masklet_server.session import events
from masklet_server.video.picture import Picture
from tests.support.session import (
    at,
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


def picture_at(seconds: float) -> events.Event:
    return events.NextPicture(Picture("encoded", b"\x01", pts_seconds=seconds))


@pytest.mark.parametrize(
    ("seconds", "frame_index"),
    [
        (-5, 0),
        (0, 0),
        (0.019, 0),
        (0.02, 0),
        (0.021, 1),
        (0.06, 1),
        (0.1, 2),
        (0.101, 3),
        (0.7, 17),
        (0.76, 19),
        (99, 19),
    ],
)
async def test_a_time_is_its_nearest_frame_the_earlier_of_two(seconds: float, frame_index: int) -> None:
    async with talk() as client:
        client.say(at(seconds), *video(20))
        await client.end()
        assert prompted(client) == [(frame_index, 1)]
        assert all(revision == 0 for _, revision, _ in lines(client)), "it was known before the frame was tracked"


@pytest.mark.parametrize(("seconds", "frame_index"), [(0.13, 3), (0.059, 1), (0.06, 1), (0.061, 2), (0.2, 4)])
async def test_a_time_that_went_by_corrects_its_nearest_frame(seconds: float, frame_index: int) -> None:
    async with talk(PATIENT) as client:
        client.say(click(1), *video(5))
        await client.frames(5)
        client.say(at(seconds))
        await client.until(lambda: lines(client)[-1][:2] == (4, 1))
        assert prompted(client)[-1] == (frame_index, 1)
        await finish(client)


async def test_of_a_live_stream_the_nearest_frame_may_turn_out_when_it_is_tracked() -> None:
    async with talk(LIVE) as client:
        client.say(click(1), at(0.05), at(0.07, 2), picture_at(0.0), picture_at(0.04))
        await client.frames(2)
        await client.quiet()
        assert prompted(client) == [(0, 1)]
        client.say(picture_at(0.08))
        await client.frames(5)
        client.say(events.EndOfVideo())
        await client.end()
        assert prompted(client) == [(0, 1), (2, 2), (1, 1)]
        assert lines(client) == [(0, 0, [1]), (1, 0, [1]), (2, 0, [1, 2]), (1, 1, [1]), (2, 1, [1])]


async def test_a_live_stream_that_ends_before_a_time_gives_its_last_frame() -> None:
    async with talk(LIVE) as client:
        client.say(at(5.0), picture_at(0.0), picture_at(0.04))
        await client.frames(2)
        client.say(events.EndOfVideo())
        await client.end()
        assert prompted(client) == [(1, 1)]
        assert lines(client)[2:] == [(1, 1, [1])]


async def test_without_corrections_a_time_is_at_the_latest_the_next_frame() -> None:
    async with talk(LIVE, correction_window=0) as client:
        client.say(at(0.05), at(9.0, 2), picture_at(0.0), picture_at(0.04))
        await client.frames(2)
        client.say(picture_at(0.08), events.EndOfVideo())
        await client.end()
        assert prompted(client) == [(2, 1)]
        assert violations(client) == [["prompt.pts_seconds"]]
        assert "is 9 (object 2), but the video ended before" in client.problems[0]


async def test_a_time_before_all_that_can_be_corrected() -> None:
    async with talk(events.Configure(live=True, correction_window=3)) as client:
        client.say(click(1), *[PICTURE] * 8, events.EndOfVideo())
        await client.frames(8)
        client.say(at(0.1))
        await client.until(lambda: client.problems)
        assert violations(client) == [["prompt.pts_seconds"]]
        assert "the oldest is frame 5 at 0.2 s" in client.problems[0]
        await finish(client)


async def test_a_prompt_for_a_time_goes_with_its_object_and_counts() -> None:
    async with talk(LIVE, max_objects=2) as client:
        client.say(at(0.5), at(0.6, 2), at(0.7, 3), events.RemoveObject(1), PICTURE)
        await client.frames(1)
        client.say(events.EndOfVideo())
        await client.end()
        assert "object 3 is one too many" in client.problems[0]
        assert {object_id for _, object_id in prompted(client)} == {2}
