"""Everything sent in answer to a request that has a number carries it."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import pytest

from masklet.v1 import common_pb2, tracking_pb2
from masklet_server.rpc import to_wire
from masklet_server.rpc.from_wire import RequestParser
from masklet_server.session import events, replies
from masklet_server.session.events import ClearPrompts, Propagate, RemoveObject, Reset
from masklet_server.session.limits import SessionLimits
from masklet_server.session.replies import Answer
from masklet_server.video.limits import VideoLimits
from tests.support.session import ON_REQUEST, click, talk, video

N = TypeVar("N", bound=events.Numbered)


def numbered(request_id: int, request: N) -> N:
    return dataclasses.replace(request, request_id=request_id)


async def test_answers_carry_the_numbers_of_their_requests() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(
            *video(4),
            numbered(11, click(1, 1)),
            numbered(12, click(1, 99)),
            numbered(13, Propagate(max_frames=1)),
            numbered(14, ClearPrompts(1, 1)),
            numbered(15, Propagate()),
            numbered(16, RemoveObject(1)),
            numbered(17, RemoveObject(1)),
            numbered(18, Reset()),
        )
        await client.until(lambda: client.all(Answer) and client.all(Answer)[-1].request_id == 18)
    said = [(answer.request_id, type(answer.response).__name__) for answer in client.all(Answer)]
    assert said == [
        (11, "PromptResult"),
        (12, "Problem"),
        (13, "FrameResult"),
        (13, "FrameResult"),
        (13, "PropagationDone"),
        (14, "PromptResult"),
        (15, "Problem"),
        (15, "PropagationDone"),
        (16, "Applied"),
        (17, "Problem"),
        (18, "Applied"),
    ]


async def test_requests_without_a_number_are_answered_as_ever() -> None:
    async with talk(ON_REQUEST) as client:
        client.say(*video(2), click(1, 0), Propagate(), RemoveObject(1), Reset())
        client.half_close()
        await client.end()
        assert not client.all(Answer)
        assert not client.all(replies.Applied)
        assert len(client.all(replies.FrameResult)) == 2


async def test_a_request_too_many_is_refused_by_its_number() -> None:
    async with talk(ON_REQUEST, max_objects=2) as client:
        client.say(*(numbered(i, click(i, 0)) for i in (1, 2, 3)))  # there is no video yet, so that they wait
        await client.until(lambda: client.all(Answer))
        (refused,) = client.all(Answer)
        assert refused.request_id == 3
        assert isinstance(refused.response, replies.Problem)
        assert "2 requests wait already" in refused.response.error.message


@pytest.mark.parametrize(
    "request_",
    [
        tracking_pb2.TrackRequest(prompt=common_pb2.Prompt(object_id=1, points=[common_pb2.Point(label=1)])),  # type: ignore[arg-type]
        tracking_pb2.TrackRequest(prompt=common_pb2.Prompt()),
        tracking_pb2.TrackRequest(remove_object=tracking_pb2.RemoveObject(object_id=1)),
        tracking_pb2.TrackRequest(clear_prompts=tracking_pb2.ClearPrompts(object_id=1)),
        tracking_pb2.TrackRequest(propagate=tracking_pb2.Propagate()),
        tracking_pb2.TrackRequest(reset=tracking_pb2.Reset()),
    ],
    ids=["prompt", "unreadable", "remove_object", "clear_prompts", "propagate", "reset"],
)
def test_numbers_come_from_the_wire(request_: tracking_pb2.TrackRequest) -> None:
    reader = RequestParser(SessionLimits(), VideoLimits())
    for request_id in (0, 2**40):
        request_.request_id = request_id
        event = reader.event(request_)
        assert isinstance(event, events.Numbered)
        assert event.request_id == request_id


def test_numbers_go_to_the_wire() -> None:
    message = to_wire.response(Answer(2**40, replies.Applied()))
    assert message.WhichOneof("response") == "applied"
    assert message.request_id == 2**40
    assert to_wire.response(replies.answering(0, replies.Applied())).request_id == 0
