"""What a client may do wrong with propagation on request, and how such a session ends."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from masklet.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MaskletError,
    NotFound,
)
from masklet.prompts import Prompt
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, encode
from masklet_server.masks.runs import Runs
from masklet_server.session import events, replies
from masklet_server.session.events import ClearPrompts, Propagate, Propagation, RemoveObject, Reset
from masklet_server.session.prompts import GivenPrompt
from masklet_server.video.packet import Packet
from tests.support.fakes import HEIGHT, WIDTH
from tests.support.session import ON_REQUEST, answers, click, ids, propagated, talk, video

# What is wrong


def square(height: int = HEIGHT) -> EncodedMask:
    mask = np.zeros((height, WIDTH), np.bool_)
    mask[2:9, 2:9] = True
    return encode(Runs.of(mask), MaskEncoding.COCO_RLE)


def mask_prompt(mask: EncodedMask) -> events.PromptObject:
    return events.PromptObject(GivenPrompt(Prompt(1, 0, mask=np.ones((1, 1), np.bool_)), mask))


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        (click(1, 5), InvalidArgument, r"prompt\.frame_index: is 5, but the video has 5 frames, 0 to 4"),
        (click(1, 0, (999, 1)), InvalidArgument, r"prompt\.points\[0\]"),
        (mask_prompt(square(HEIGHT + 1)), InvalidArgument, r"prompt\.mask: is 64x49"),
        (mask_prompt(EncodedMask(MaskEncoding.COCO_RLE, HEIGHT, WIDTH, b"0")), InvalidArgument, r"prompt\.mask"),
        (events.PromptObject(click().prompt, on_next_frame=True), InvalidArgument, r"prompt\.on_next_frame"),
        (ClearPrompts(1, 9), InvalidArgument, r"clear_prompts\.frame_index: is 9"),
        (ClearPrompts(8, 0), NotFound, "object 8 is not tracked"),
        (RemoveObject(8), NotFound, "object 8 is not tracked"),
        (Propagate(77), InvalidArgument, r"propagate\.start_frame_index: is 77, but the video has 5 frames"),
    ],
)
async def test_faults_are_answered_and_harm_nothing(request_: Any, kind: type[MaskletError], message: str) -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(5), click(3), request_, Propagate())
        await client.until(lambda: client.all(replies.FrameResult))
        (problem,) = client.all(replies.Problem)
        assert type(problem.error) is kind
        with pytest.raises(kind, match=message):
            raise problem.error
        assert ids(client.all(replies.FrameResult)[0]) == [3]


async def test_a_prompt_that_the_engine_refuses() -> None:
    async with talk(ON_REQUEST) as client:
        client.engine.refuse = lambda job: (
            InvalidArgument.of("mask", "is too small") if len(client.engine.jobs) == 1 else None
        )
        client.say(*video(2), mask_prompt(square()), Propagate(), mask_prompt(square()))
        await client.until(lambda: client.all(replies.PromptResult))
        assert client.problems == ["prompt.mask: is too small", "there is no object to track; send a prompt first"]


async def test_too_many_objects_and_requests() -> None:
    async with talk(ON_REQUEST, max_objects=2) as client:
        client.say(*video(2), click(1), click(2))
        await answers(client, 2)
        client.say(click(3))
        await client.until(lambda: client.problems)
        assert client.problems == ["object 3 is one too many: max_objects is 2; remove_object makes room"]
        client.engine.open_gate.clear()
        client.say(Propagate())
        await client.until(lambda: client.engine.running)
        client.say(Reset(), Reset(), Reset())
        await client.until(lambda: len(client.problems) == 2)
        assert "2 requests wait already" in client.problems[1]
        client.engine.open_gate.set()
        await propagated(client)


async def test_too_large_masks() -> None:
    mask = square()
    async with talk(ON_REQUEST, max_mask_bytes=len(mask.data)) as client:
        client.say(*[mask_prompt(mask)] * 5)
        await client.until(lambda: client.problems)
        assert "the masks of waiting prompts would take" in client.problems[0]


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"delivery": events.Delivery.LATEST}, r"config\.delivery"),
        ({"memory_policy": MemoryPolicy.MOTION_AWARE}, r"config\.memory_policy"),
        ({"live": True}, r"config\.live"),
        ({"correction_window": 8}, r"config\.correction_window"),
    ],
)
def test_what_goes_with_automatic_propagation_alone(config: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        events.Configure(propagation=Propagation.ON_REQUEST, **config)


async def test_packets_are_refused() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(events.NextPacket(Packet(b"x", "h264")))
        with pytest.raises(InvalidArgument, match=r"packet: cannot be used with PROPAGATION_ON_REQUEST"):
            await client.end()


@pytest.mark.parametrize("request_", [Propagate(), events.StopPropagation(), events.Prepare(0), Reset()])
async def test_requests_are_refused_where_propagation_is_automatic(request_: events.Event) -> None:
    async with talk() as client:
        client.say(request_, click(), *video(2))
        await client.end()
        (problem,) = client.all(replies.Problem)
        assert isinstance(problem.error, FailedPrecondition)
        assert "needs config.propagation = PROPAGATION_ON_REQUEST" in problem.error.message
        assert len(client.all(replies.FrameResult)) == 2


# Ends


async def test_half_closing_before_the_end_of_the_video_cancels() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(click(), events.VideoChunk(bytes(20)))
        client.half_close()
        with pytest.raises(Cancelled, match="went away"):
            await client.end()
        assert client.source.closed


async def test_cancelling_frees_everything_at_once() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(500), click(), Propagate())
        await client.frames(5)
        client.say(events.Cancel())
        with pytest.raises(Cancelled):
            await asyncio.wait_for(client.end(), 1)
        assert client.source.closed
        assert client.on_request.annotator.objects == {}
        assert client.on_request.frames.nbytes == 0
        assert client.engine.forgotten == [client.session.id]


async def test_an_annotator_may_think_longer_than_a_client_may_stall() -> None:
    async with talk(ON_REQUEST, idle_timeout_seconds=0.2, annotation_idle_timeout_seconds=1.0) as client:
        client.say(*video(2), click())
        await answers(client, 1)
        await asyncio.sleep(0.5)
        client.say(Propagate())
        await propagated(client)
        with pytest.raises(DeadlineExceeded, match=r"no progress for 1 s while waiting for the client's next request"):
            await client.end()
        (opened,) = client.all(replies.Opened)
        assert opened.idle_timeout_seconds == 1.0


async def test_a_client_that_stalls_in_its_upload_is_not_waited_for_that_long() -> None:
    async with talk(ON_REQUEST, idle_timeout_seconds=0.2) as client:
        client.say(events.VideoChunk(bytes(2)))
        with pytest.raises(DeadlineExceeded, match=r"no progress for 0\.2 s"):
            await client.end()
