"""Between the wire and the session: what a client's messages become, and which field an error names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from google.rpc import error_details_pb2

from masklet.errors import InvalidArgument, NotFound
from masklet.v1 import common_pb2, image_pb2, tracking_pb2
from masklet_server.engine.policies import MemoryPolicy
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.rpc import convert
from masklet_server.rpc.convert import Converter
from masklet_server.session import events, replies
from masklet_server.session.limits import SessionLimits
from masklet_server.session.visibility import ObjectEvent
from masklet_server.video.source import VideoInfo, VideoLimits

CONVERTER = Converter(SessionLimits(max_mask_bytes=100), VideoLimits(max_frame_pixels=10_000))
FOREGROUND, BACKGROUND = common_pb2.POINT_LABEL_FOREGROUND, common_pb2.POINT_LABEL_BACKGROUND
RLE = common_pb2.MASK_ENCODING_COCO_RLE


def request(**fields: Any) -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(**fields)


def point(x: float = 1, y: float = 2, label: Any = FOREGROUND) -> common_pb2.Point:
    return common_pb2.Point(x=x, y=y, label=label)


def prompt(**fields: Any) -> common_pb2.Prompt:
    return common_pb2.Prompt(**{"object_id": 1, **fields})


def fields_of(error: Any) -> list[str]:
    return [violation.field for violation in error.violations]


def test_every_kind_of_request_has_its_event() -> None:
    assert CONVERTER.event(request(config=tracking_pb2.TrackConfig())) == events.Configure()
    assert CONVERTER.event(
        request(
            config=tracking_pb2.TrackConfig(
                model="m",
                mask_encoding=common_pb2.MASK_ENCODING_PNG,
                deterministic=True,
                window=3,
                frame_count=9,
            )
        )
    ) == events.Configure("m", MaskEncoding.PNG, True, 3, 9)
    assert CONVERTER.event(request(video_chunk=b"abc")) == events.VideoChunk(b"abc")
    assert CONVERTER.event(request(remove_object=tracking_pb2.RemoveObject(object_id=4))) == events.RemoveObject(4)
    assert CONVERTER.event(request(ack=tracking_pb2.Ack(sequence=7))) == events.Ack(7)
    assert CONVERTER.event(request(end_of_video=tracking_pb2.EndOfVideo())) == events.EndOfVideo()
    assert CONVERTER.event(request(cancel=tracking_pb2.Cancel())) == events.Cancel()
    assert isinstance(CONVERTER.event(request(prompt=prompt(points=[point()]))), events.PromptObject)


def test_live_streams_say_how_they_are_delivered() -> None:
    config = tracking_pb2.TrackConfig(delivery=tracking_pb2.DELIVERY_LATEST, max_latency_seconds=0.25)
    expected = events.Configure(delivery=events.Delivery.LATEST, max_latency_seconds=0.25, live=True)
    assert CONVERTER.event(request(config=config)) == expected
    assert CONVERTER.event(request(config=tracking_pb2.TrackConfig(live=True))) == events.Configure(live=True)


def test_requests_have_their_events() -> None:
    on_request = tracking_pb2.TrackConfig(propagation=tracking_pb2.PROPAGATION_ON_REQUEST)
    assert CONVERTER.event(request(config=on_request)) == events.Configure(propagation=events.Propagation.ON_REQUEST)
    automatic = tracking_pb2.TrackConfig(propagation=tracking_pb2.PROPAGATION_AUTOMATIC)
    assert CONVERTER.event(request(config=automatic)) == events.Configure()
    clear = tracking_pb2.ClearPrompts(object_id=2, frame_index=9)
    assert CONVERTER.event(request(clear_prompts=clear)) == events.ClearPrompts(2, 9)
    assert CONVERTER.event(request(stop_propagation=tracking_pb2.StopPropagation())) == events.StopPropagation()
    assert CONVERTER.event(request(reset=tracking_pb2.Reset())) == events.Reset()
    assert CONVERTER.event(request(propagate=tracking_pb2.Propagate())) == events.Propagate()
    both = tracking_pb2.Propagate(start_frame_index=0, max_frames=0, direction=tracking_pb2.DIRECTION_BOTH)
    assert CONVERTER.event(request(propagate=both)) == events.Propagate(0, 0, events.Direction.BOTH)


def test_wrong_requests_name_their_fields() -> None:
    sideways = CONVERTER.event(request(propagate=tracking_pb2.Propagate(direction=9)))  # type: ignore[arg-type]
    assert isinstance(sideways, events.Unreadable)
    assert fields_of(sideways.error) == ["propagate.direction"]
    with pytest.raises(InvalidArgument, match=r"config\.propagation: is 7"):
        CONVERTER.event(request(config=tracking_pb2.TrackConfig(propagation=7)))  # type: ignore[arg-type]
    for seconds in (float("nan"), float("inf")):
        timeless = CONVERTER.event(request(prompt=prompt(points=[point()], pts_seconds=seconds)))
        assert isinstance(timeless, events.Unreadable)
        assert fields_of(timeless.error) == ["prompt.pts_seconds"]


@pytest.mark.parametrize(
    ("number", "policy"),
    [
        (tracking_pb2.MEMORY_POLICY_UNSPECIFIED, MemoryPolicy.SAM2),
        (tracking_pb2.MEMORY_POLICY_SAM2, MemoryPolicy.SAM2),
        (tracking_pb2.MEMORY_POLICY_DISTRACTOR_AWARE, MemoryPolicy.DISTRACTOR_AWARE),
        (tracking_pb2.MEMORY_POLICY_MOTION_AWARE, MemoryPolicy.MOTION_AWARE),
    ],
)
def test_every_memory_policy_is_known(number: Any, policy: MemoryPolicy) -> None:
    event = CONVERTER.event(request(config=tracking_pb2.TrackConfig(memory_policy=number)))
    assert event == events.Configure(memory_policy=policy)


def test_packets_keep_everything() -> None:
    message = tracking_pb2.Packet(
        codec="h264", extradata=b"e", data=b"d", pts_seconds=2.5, capture_time_nanoseconds=7, is_fragment=True
    )
    event = CONVERTER.event(request(packet=message))
    assert isinstance(event, events.NextPacket)
    packet = event.packet
    assert (packet.codec, packet.extradata, packet.data) == ("h264", b"e", b"d")
    assert (packet.pts_seconds, packet.capture_time_nanoseconds, packet.is_fragment) == (2.5, 7, True)


def test_a_prompt_may_be_for_the_next_frame() -> None:
    for flag in (False, True):
        event = CONVERTER.event(request(prompt=prompt(points=[point()], on_next_frame=flag)))
        assert isinstance(event, events.PromptObject)
        assert event.on_next_frame is flag


def test_a_prompt_may_be_for_a_time() -> None:
    point = common_pb2.Point(x=1, y=2, label=common_pb2.POINT_LABEL_FOREGROUND)
    message = common_pb2.Prompt(object_id=1, points=[point], pts_seconds=0.0)
    event = CONVERTER.event(tracking_pb2.TrackRequest(prompt=message))
    assert isinstance(event, events.PromptObject)
    assert (event.prompt.pts_nanoseconds, event.on_next_frame) == (0, False)
    message.on_next_frame = True
    refused = CONVERTER.event(tracking_pb2.TrackRequest(prompt=message))
    assert isinstance(refused, events.Unreadable)
    assert [v.field for v in refused.error.violations] == ["prompt.pts_seconds"]


def test_corrections_are_asked_for_and_prompts_taken_back() -> None:
    config = CONVERTER.event(tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig(correction_window=9)))
    assert isinstance(config, events.Configure)
    assert config.correction_window == 9
    cleared = tracking_pb2.ClearPrompts(object_id=3, frame_index=4)
    assert CONVERTER.event(tracking_pb2.TrackRequest(clear_prompts=cleared)) == events.ClearPrompts(3, 4)


def test_points_and_box_become_arrays() -> None:
    given = CONVERTER.prompt(
        prompt(
            object_id=3,
            frame_index=5,
            points=[point(1.5, 2.5), point(3, 4, BACKGROUND)],
            box=common_pb2.Box(x0=0, y0=1, x1=2, y1=3),
        )
    )
    assert given.mask is None
    assert (given.object_id, given.frame_index) == (3, 5)
    assert given.prompt.point_coords is not None
    assert given.prompt.point_coords.tolist() == [[1.5, 2.5], [3, 4]]
    assert given.prompt.point_labels is not None
    assert given.prompt.point_labels.tolist() == [1, 0]
    assert given.prompt.box is not None
    assert given.prompt.box.tolist() == [0, 1, 2, 3]
    assert CONVERTER.prompt(prompt(points=[point()], keep_old_points=True)).prompt.keep_old_points


def test_a_mask_stays_encoded() -> None:
    given = CONVERTER.prompt(prompt(mask=common_pb2.Mask(encoding=RLE, height=3, width=4, data=b"data")))
    assert given.mask == EncodedMask(MaskEncoding.COCO_RLE, 3, 4, b"data")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (prompt(), "prompt.points"),
        (prompt(object_id=0, points=[point()]), "prompt.object_id"),
        (prompt(points=[point(), point(label=0)]), "prompt.points[1].label"),
        (prompt(points=[point(label=7)]), "prompt.points[0].label"),
        (prompt(points=[point(), point(), point(float("nan"))]), "prompt.points[2]"),
        (prompt(points=[point(float("inf"))]), "prompt.points[0]"),
        (prompt(points=[point()] * 257), "prompt.points"),
        (prompt(box=common_pb2.Box(x0=5, y0=0, x1=1, y1=9)), "prompt.box"),
        (prompt(box=common_pb2.Box()), "prompt.box"),
        (prompt(box=common_pb2.Box(x0=0, y0=0, x1=float("nan"), y1=1)), "prompt.box"),
        (prompt(box=common_pb2.Box(x1=1, y1=1), keep_old_points=True), "prompt.keep_old_points"),
        (prompt(mask=common_pb2.Mask()), "prompt.mask.encoding"),
        (prompt(mask=common_pb2.Mask(encoding=9, height=1, width=1)), "prompt.mask.encoding"),  # type: ignore[arg-type]
        (
            prompt(mask=common_pb2.Mask(encoding=common_pb2.MASK_ENCODING_NONE, height=1, width=1)),
            "prompt.mask.encoding",
        ),
        (prompt(mask=common_pb2.Mask(encoding=RLE, width=4, data=b"0")), "prompt.mask.height"),
        (prompt(mask=common_pb2.Mask(encoding=RLE, height=101, width=100)), "prompt.mask.height"),
        (prompt(mask=common_pb2.Mask(encoding=RLE, height=1, width=1, data=bytes(101))), "prompt.mask.data"),
        (prompt(mask=common_pb2.Mask(encoding=RLE, height=1, width=1, data=b"1"), points=[point()]), "prompt.mask"),
    ],
)
def test_a_wrong_prompt_is_an_event_that_names_its_field(message: common_pb2.Prompt, field: str) -> None:
    event = CONVERTER.event(request(prompt=message))
    assert isinstance(event, events.Unreadable)
    assert isinstance(event.error, InvalidArgument)
    assert fields_of(event.error) == [field]
    assert event.error.message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (request(), "request"),
        (request(config=tracking_pb2.TrackConfig(mask_encoding=9)), "config.mask_encoding"),  # type: ignore[arg-type]
        (request(frame=common_pb2.Picture(data=b"x")), "frame.format"),
        (request(config=tracking_pb2.TrackConfig(delivery=9)), "config.delivery"),  # type: ignore[arg-type]
        (request(config=tracking_pb2.TrackConfig(memory_policy=9)), "config.memory_policy"),  # type: ignore[arg-type]
        (request(packet=tracking_pb2.Packet(data=b"x", codec="theora")), "packet.codec"),
        (request(packet=tracking_pb2.Packet(codec="h264")), "packet.data"),
        (request(frame=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED)), "frame.data"),
        (
            request(frame=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_RGB24, height=2, width=2, data=b"12")),
            "frame.data",
        ),
        (
            request(
                frame=common_pb2.Picture(format=common_pb2.PICTURE_FORMAT_ENCODED, data=b"x", pts_seconds=float("nan"))
            ),
            "frame.pts_seconds",
        ),
    ],
)
def test_a_wrong_configuration_or_picture_ends_the_stream(message: tracking_pb2.TrackRequest, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        CONVERTER.event(message)
    assert fields_of(raised.value) == [field]


@pytest.mark.parametrize(
    ("number", "name", "size"),
    [
        (common_pb2.PICTURE_FORMAT_RGB24, "rgb24", 24),
        (common_pb2.PICTURE_FORMAT_BGR24, "bgr24", 24),
        (common_pb2.PICTURE_FORMAT_GRAY8, "gray8", 8),
        (common_pb2.PICTURE_FORMAT_NV12, "nv12", 12),
        (common_pb2.PICTURE_FORMAT_ENCODED, "encoded", 5),
    ],
)
def test_pictures_keep_format_size_and_time(number: Any, name: str, size: int) -> None:
    message = common_pb2.Picture(format=number, height=2, width=4, data=bytes(size), pts_seconds=0.5)
    picture = convert.picture(message, "frame")
    assert (picture.format, picture.height, picture.width, picture.pts_seconds) == (name, 2, 4, 0.5)
    message.ClearField("pts_seconds")
    assert convert.picture(message, "frame").pts_seconds is None


def test_a_picture_prompt_has_everything_that_was_sent() -> None:
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    complete = convert.segment_prompt(
        image_pb2.SegmentPrompt(
            points=[point(4, 5, BACKGROUND)],
            box=common_pb2.Box(x1=1, y1=1),
            mask_input=convert.logits_to_wire(logits),
        ),
        None,
    )
    assert complete.point_coords is not None
    assert complete.point_coords.tolist() == [[4, 5]]
    assert complete.box is not None
    assert complete.mask is None
    assert complete.mask_input is not None
    assert np.array_equal(complete.mask_input, logits)


def test_logits_of_a_wrong_size_are_refused() -> None:
    wrong = common_pb2.Logits(height=2, width=3, data=bytes(20))
    with pytest.raises(InvalidArgument, match="has 20 bytes, 2x3 float32 have 24"):
        convert.segment_prompt(image_pb2.SegmentPrompt(mask_input=wrong), None)


def object_result(area: int = 6, score: float = 2.0) -> replies.ObjectResult:
    box = (1, 2, 4, 4) if area else None
    return replies.ObjectResult(7, EncodedMask(MaskEncoding.PNG, 9, 8, b"png"), box, area, 0.5, score)


@pytest.mark.parametrize(("area", "score", "visible"), [(6, 2.0, True), (0, 2.0, False), (6, -1.0, False)])
def test_an_object_is_visible_if_it_is_there_and_has_a_mask(area: int, score: float, visible: bool) -> None:
    answer = convert.response(replies.PromptResult(3, 4, object_result(area, score))).prompt_result
    assert (answer.sequence, answer.frame_index, answer.object.object_id) == (3, 4, 7)
    assert answer.object.visible is visible
    assert answer.object.HasField("box") is bool(area)
    assert answer.object.mask == common_pb2.Mask(encoding=common_pb2.MASK_ENCODING_PNG, height=9, width=8, data=b"png")


def test_the_end_of_a_propagation_and_the_revision_of_a_frame() -> None:
    answer = convert.response(replies.PropagationDone(3, 7, stopped=True)).propagation_done
    assert (answer.start_frame_index, answer.frame_count, answer.stopped) == (3, 7, True)
    result = replies.FrameResult(5, 2, 1001, Fraction(1, 30_000), 33_366_667, (), revision=4)
    assert convert.response(result).frame_result.revision == 4


def test_a_frame_result_carries_time_and_objects() -> None:
    result = replies.FrameResult(5, 2, 1001, Fraction(1, 30_000), 33_366_667, (object_result(),), (0, 1), 99, 0.5)
    answer = convert.response(result).frame_result
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
    assert convert.response(result).frame_result.objects[0].event == number


CASES: list[tuple[replies.Response, Callable[[tracking_pb2.TrackResponse], Any], Any]] = [
    (
        replies.Opened("id", "m", 5, 6, 0.4),
        lambda r: r.session,
        tracking_pb2.SessionInfo(session_id="id", model="m", window=5, max_objects=6, idle_timeout_seconds=1),
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
    assert pick(convert.response(answer)) == expected


def test_a_problem_is_a_status_with_the_fields() -> None:
    status = convert.response(replies.Problem(InvalidArgument.of("prompt.box", "is empty"))).error
    assert (status.code, status.message) == (3, "prompt.box: is empty")
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [(v.field, v.description) for v in bad.field_violations] == [("prompt.box", "is empty")]
    assert convert.response(replies.Problem(NotFound("object 5"))).error.code == 5
