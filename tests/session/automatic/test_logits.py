"""Low-resolution logits in results: asked for, passed on, and bounded by the size of a message."""

from __future__ import annotations

import numpy as np
import pytest

from masklet.errors import InvalidArgument
from masklet_server.rpc import to_wire
from masklet_server.session import events, replies
from masklet_server.session.limits import SessionLimits
from tests.support.fakes import LOGITS_SIZE
from tests.support.session import click, talk, video

LOGITS_BYTES = 4 * LOGITS_SIZE**2


@pytest.mark.parametrize("asked", [True, False])
async def test_results_carry_logits_if_they_are_asked_for(asked: bool) -> None:
    async with talk(events.Configure(return_logits=asked)) as client:
        client.say(click(1), click(2), *video(3))
        await client.end()
    results = [result for frame in client.all(replies.FrameResult) for result in frame.objects]
    results += [prompted.object for prompted in client.all(replies.PromptResult)]
    assert len(results) == 3 * 2 + 2
    for result in results:
        if asked:
            assert result.logits is not None
            np.testing.assert_array_equal(result.logits, np.full((LOGITS_SIZE, LOGITS_SIZE), result.object_id - 1))
        else:
            assert result.logits is None


async def test_as_many_objects_as_fit_into_a_message() -> None:
    async with talk(events.Configure(return_logits=True), max_message_bytes=4 * LOGITS_BYTES) as client:
        client.say(*(click(object_id) for object_id in (1, 2, 3, 4)), *video(1))
        await client.end()
    (opened,) = client.all(replies.Opened)
    assert opened.max_objects == 3
    assert client.problems == ["object 4 is one too many: max_objects is 3; remove_object makes room"]
    (frame,) = client.all(replies.FrameResult)
    wire = to_wire.response(frame)
    assert wire.ByteSize() <= 4 * LOGITS_BYTES
    assert len(wire.frame_result.objects) == 3


async def test_a_message_that_is_too_small_for_one() -> None:
    limits = SessionLimits(max_message_bytes=LOGITS_BYTES)
    with pytest.raises(InvalidArgument, match="leave it out") as caught:
        limits.with_logits(LOGITS_BYTES)
    assert caught.value.violations[0].field == "config.return_logits"


def test_official_models_fit_the_default_limits() -> None:
    assert SessionLimits().with_logits(4 * 256**2) == SessionLimits()


def test_the_wire_takes_them_as_they_are() -> None:
    logits = np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5
    wire = to_wire.logits(logits)
    assert (wire.height, wire.width) == (2, 3)
    np.testing.assert_array_equal(np.frombuffer(wire.data, "<f4").reshape(2, 3), logits)
