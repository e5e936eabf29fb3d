"""What a session says becomes messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from google.rpc import error_details_pb2

from masklet.errors import InvalidArgument, NotFound
from masklet.v1 import common_pb2, tracking_pb2
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.rpc import to_wire
from masklet_server.session import replies
from masklet_server.session.replies import ObjectEvent
from masklet_server.video.info import VideoInfo


def object_result(area: int = 6, score: float = 2.0) -> replies.ObjectResult:
    box = (1, 2, 4, 4) if area else None
    return replies.ObjectResult(7, EncodedMask(MaskEncoding.PNG, 9, 8, b"png"), box, area, 0.5, score)


@pytest.mark.parametrize(("area", "score", "visible"), [(6, 2.0, True), (0, 2.0, False), (6, -1.0, False)])
def test_an_object_is_visible_if_it_is_there_and_has_a_mask(area: int, score: float, visible: bool) -> None:
    answer = to_wire.response(replies.PromptResult(3, 4, object_result(area, score))).prompt_result
    assert (answer.sequence, answer.frame_index, answer.object.object_id) == (3, 4, 7)
    assert answer.object.visible is visible
    assert answer.object.HasField("box") is bool(area)
    assert answer.object.mask == common_pb2.Mask(encoding=common_pb2.MASK_ENCODING_PNG, height=9, width=8, data=b"png")


def test_the_end_of_a_propagation_and_the_revision_of_a_frame() -> None:
    answer = to_wire.response(replies.PropagationDone(3, 7, stopped=True)).propagation_done
    assert (answer.start_frame_index, answer.frame_count, answer.stopped) == (3, 7, True)
    result = replies.FrameResult(5, 2, 1001, Fraction(1, 30_000), 33_366_667, (), revision=4)
    assert to_wire.response(result).frame_result.revision == 4


def test_a_frame_result_carries_time_and_objects() -> None:
    result = replies.FrameResult(5, 2, 1001, Fraction(1, 30_000), 33_366_667, (object_result(),), (0, 1), 99, 0.5)
    answer = to_wire.response(result).frame_result
    assert (answer.sequence, answer.frame_index, answer.revision) == (5, 2, 0)
    assert (answer.pts, answer.time_base_numerator, answer.time_base_denominator) == (1001, 1, 30_000)
    assert answer.pts_nanoseconds == 33_366_667
    assert list(answer.skipped_frame_indices) == [0, 1]
    assert (answer.capture_time_nanoseconds, answer.latency_seconds) == (99, 0.5)
    (one,) = answer.objects
    assert (one.area, one.predicted_iou, one.object_score) == (6, 0.5, 2.0)
    assert one.box == common_pb2.Box(x0=1, y0=2, x1=4, y1=4)


@pytest.mark.parametrize(
    ("event", "number"),
    [
        (None, common_pb2.OBJECT_EVENT_UNSPECIFIED),
        (ObjectEvent.LOST, common_pb2.OBJECT_EVENT_LOST),
        (ObjectEvent.REACQUIRED, common_pb2.OBJECT_EVENT_REACQUIRED),
        (ObjectEvent.OUT_OF_VIEW, common_pb2.OBJECT_EVENT_OUT_OF_VIEW),
    ],
)
def test_events_are_told(event: ObjectEvent | None, number: int) -> None:
    happened = replace(object_result(), event=event)
    result = replies.FrameResult(1, 0, 0, Fraction(1, 30), 0, (happened,))
    assert to_wire.response(result).frame_result.objects[0].event == number


CASES: list[tuple[replies.Response, Callable[[tracking_pb2.TrackResponse], Any], Any]] = [
    (
        replies.Opened("id", "m", 5, 6, 0.4),
        lambda r: r.session,
        tracking_pb2.SessionInfo(session_id="id", model="m", window=5, max_objects=6, idle_timeout_seconds=1),
    ),
    (
        replies.Opened("id", "m", 5, 6, 3.0, can_prepare=True),
        lambda r: r.session.can_prepare,
        True,
    ),
    (
        replies.Described(VideoInfo(4, 5, 25.0, 1.5, 40, "mp4", "h264", 90)),
        lambda r: r.video_info,
        tracking_pb2.VideoInfo(
            height=4,
            width=5,
            frame_rate=25.0,
            duration_seconds=1.5,
            frame_count=40,
            container="mp4",
            codec="h264",
            rotation_degrees=90,
        ),
    ),
    (replies.Done(9), lambda r: r.done, tracking_pb2.Done(frame_count=9)),
]


@pytest.mark.parametrize(("answer", "pick", "expected"), CASES)
def test_every_other_answer_has_its_message(answer: replies.Response, pick: Callable[..., Any], expected: Any) -> None:
    assert pick(to_wire.response(answer)) == expected


def test_a_problem_is_a_status_with_the_fields() -> None:
    status = to_wire.response(replies.Problem(InvalidArgument.of("prompt.box", "is empty"))).error
    assert (status.code, status.message) == (3, "prompt.box: is empty")
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [(v.field, v.description) for v in bad.field_violations] == [("prompt.box", "is empty")]
    assert to_wire.response(replies.Problem(NotFound("object 5"))).error.code == 5
