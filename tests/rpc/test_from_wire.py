"""What a client's messages become, and which field an error names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from masklet.errors import InvalidArgument
from masklet.v1 import common_pb2, image_pb2, tracking_pb2
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.rpc import from_wire, to_wire
from masklet_server.rpc.from_wire import RequestParser
from masklet_server.session import events
from masklet_server.session.limits import SessionLimits
from masklet_server.video.limits import VideoLimits

READER = RequestParser(SessionLimits(max_mask_bytes=100), VideoLimits(max_frame_pixels=10_000))
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
    assert READER.event(request(config=tracking_pb2.TrackConfig())) == events.Configure()
    assert READER.event(
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
    assert READER.event(request(video_chunk=b"abc")) == events.VideoChunk(b"abc")
    assert READER.event(request(remove_object=tracking_pb2.RemoveObject(object_id=4))) == events.RemoveObject(4)
    assert READER.event(request(ack=tracking_pb2.Ack(sequence=7))) == events.Ack(7)
    assert READER.event(request(end_of_video=tracking_pb2.EndOfVideo())) == events.EndOfVideo()
    assert READER.event(request(cancel=tracking_pb2.Cancel())) == events.Cancel()
    assert isinstance(READER.event(request(prompt=prompt(points=[point()]))), events.PromptObject)


def test_live_streams_have_their_delivery() -> None:
    config = tracking_pb2.TrackConfig(delivery=tracking_pb2.DELIVERY_LATEST, max_latency_seconds=0.25)
    expected = events.Configure(delivery=events.Delivery.LATEST, max_latency_seconds=0.25, live=True)
    assert READER.event(request(config=config)) == expected
    assert READER.event(request(config=tracking_pb2.TrackConfig(live=True))) == events.Configure(live=True)


def test_requests_have_their_events() -> None:
    on_request = tracking_pb2.TrackConfig(propagation=tracking_pb2.PROPAGATION_ON_REQUEST)
    assert READER.event(request(config=on_request)) == events.Configure(propagation=events.Propagation.ON_REQUEST)
    automatic = tracking_pb2.TrackConfig(propagation=tracking_pb2.PROPAGATION_AUTOMATIC)
    assert READER.event(request(config=automatic)) == events.Configure()
    clear = tracking_pb2.ClearPrompts(object_id=2, frame_index=9)
    assert READER.event(request(clear_prompts=clear)) == events.ClearPrompts(2, 9)
    assert READER.event(request(stop_propagation=tracking_pb2.StopPropagation())) == events.StopPropagation()
    assert READER.event(request(prepare=tracking_pb2.Prepare(frame_index=7))) == events.Prepare(7)
    assert READER.event(request(reset=tracking_pb2.Reset())) == events.Reset()
    assert READER.event(request(propagate=tracking_pb2.Propagate())) == events.Propagate()
    both = tracking_pb2.Propagate(start_frame_index=0, max_frames=0, direction=tracking_pb2.DIRECTION_BOTH)
    assert READER.event(request(propagate=both)) == events.Propagate(0, 0, events.Direction.BOTH)


def test_wrong_requests_name_their_fields() -> None:
    sideways = READER.event(request(propagate=tracking_pb2.Propagate(direction=9)))  # type: ignore[arg-type]
    assert isinstance(sideways, events.Unreadable)
    assert fields_of(sideways.error) == ["propagate.direction"]
    with pytest.raises(InvalidArgument, match=r"config\.propagation: is 7"):
        READER.event(request(config=tracking_pb2.TrackConfig(propagation=7)))  # type: ignore[arg-type]
    for seconds in (float("nan"), float("inf")):
        timeless = READER.event(request(prompt=prompt(points=[point()], pts_seconds=seconds)))
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
    event = READER.event(request(config=tracking_pb2.TrackConfig(memory_policy=number)))
    assert event == events.Configure(memory_policy=policy)


def test_packets_keep_everything() -> None:
    message = tracking_pb2.Packet(
        codec="h264", extradata=b"e", data=b"d", pts_seconds=2.5, capture_time_nanoseconds=7, is_fragment=True
    )
    event = READER.event(request(packet=message))
    assert isinstance(event, events.NextPacket)
    packet = event.packet
    assert (packet.codec, packet.extradata, packet.data) == ("h264", b"e", b"d")
    assert (packet.pts_seconds, packet.capture_time_nanoseconds, packet.is_fragment) == (2.5, 7, True)


def test_a_prompt_may_be_for_the_next_frame() -> None:
    for flag in (False, True):
        event = READER.event(request(prompt=prompt(points=[point()], on_next_frame=flag)))
        assert isinstance(event, events.PromptObject)
        assert event.on_next_frame is flag


def test_a_prompt_may_be_for_a_time() -> None:
    point = common_pb2.Point(x=1, y=2, label=common_pb2.POINT_LABEL_FOREGROUND)
    message = common_pb2.Prompt(object_id=1, points=[point], pts_seconds=0.0)
    event = READER.event(tracking_pb2.TrackRequest(prompt=message))
    assert isinstance(event, events.PromptObject)
    assert (event.prompt.pts_nanoseconds, event.on_next_frame) == (0, False)
    message.on_next_frame = True
    refused = READER.event(tracking_pb2.TrackRequest(prompt=message))
    assert isinstance(refused, events.Unreadable)
    assert [v.field for v in refused.error.violations] == ["prompt.pts_seconds"]


def test_corrections_are_asked_for_and_prompts_taken_back() -> None:
    config = READER.event(tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig(correction_window=9)))
    assert isinstance(config, events.Configure)
    assert config.correction_window == 9
    cleared = tracking_pb2.ClearPrompts(object_id=3, frame_index=4)
    assert READER.event(tracking_pb2.TrackRequest(clear_prompts=cleared)) == events.ClearPrompts(3, 4)


def test_points_and_box_become_arrays() -> None:
    given = READER.prompt(
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
    assert READER.prompt(prompt(points=[point()], keep_old_points=True)).prompt.keep_old_points


def test_a_mask_stays_encoded() -> None:
    given = READER.prompt(prompt(mask=common_pb2.Mask(encoding=RLE, height=3, width=4, data=b"data")))
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
    event = READER.event(request(prompt=message))
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
        READER.event(message)
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
    picture = from_wire.picture(message, "frame")
    assert (picture.format, picture.height, picture.width, picture.pts_seconds) == (name, 2, 4, 0.5)
    message.ClearField("pts_seconds")
    assert from_wire.picture(message, "frame").pts_seconds is None


def test_a_picture_prompt_has_everything_that_was_sent() -> None:
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    complete = from_wire.segment_prompt(
        image_pb2.SegmentPrompt(
            points=[point(4, 5, BACKGROUND)],
            box=common_pb2.Box(x1=1, y1=1),
            mask_input=to_wire.logits(logits),
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
    with pytest.raises(InvalidArgument, match="has 20 bytes; 2x3 values of float32 have 24"):
        from_wire.segment_prompt(image_pb2.SegmentPrompt(mask_input=wrong), None)


def test_more_objects_than_a_session_has_are_refused_before_they_are_looked_at() -> None:
    parser = RequestParser(SessionLimits(max_objects=3), VideoLimits())
    fine = parser.event(request(propagate=tracking_pb2.Propagate(object_ids=[1, 2, 3])))
    assert isinstance(fine, events.Propagate)
    assert fine.object_ids == {1, 2, 3}
    many = parser.event(request(propagate=tracking_pb2.Propagate(object_ids=[1] * 4)))
    assert isinstance(many, events.Unreadable)
    assert fields_of(many.error) == ["propagate.object_ids"]
    assert "at most 3 objects" in str(many.error)


def test_a_session_begins_anew_with_so_many_operations_at_most() -> None:
    one = tracking_pb2.AppliedOperation(remove_object=tracking_pb2.RemoveObject(object_id=1))
    resumed = READER.event(request(resume=tracking_pb2.Resume(token="t", operations=[one] * 10_000)))
    assert isinstance(resumed, events.Resume)
    with pytest.raises(InvalidArgument, match="has 10001 operations; send at most 10000") as caught:
        READER.event(request(resume=tracking_pb2.Resume(token="t", operations=[one] * 10_001)))
    assert fields_of(caught.value) == ["resume.operations"]
