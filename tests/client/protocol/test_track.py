"""The client's half of a track call, message by message, without a wire."""

from __future__ import annotations

from typing import Any

import pytest

import masklet
from masklet._protocol.options import track_config
from masklet._protocol.track import LOOKAHEAD_FRAMES, Step, TrackProtocol
from masklet.v1 import common_pb2, tracking_pb2
from masklet_server.rpc.status import to_status
from tests.support.scripted.fake_script import square, wire_object

CLICK = masklet.Prompt(point_coords=[[1, 2]])


def protocol(*, pictures: bool = False, frame_count: int = 0) -> TrackProtocol:
    config = track_config({"model": "nano"}, frame_count=frame_count)
    return TrackProtocol(config, [CLICK], pictures=pictures)


def sent(subject: TrackProtocol) -> str:
    request = subject.next_request()
    return request.name if isinstance(request, Step) else request.WhichOneof("request") or ""


def chunk() -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(video_chunk=b"x")


def picture() -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(frame=common_pb2.Picture(data=b"x"))


def session(window: int) -> tracking_pb2.TrackResponse:
    return tracking_pb2.TrackResponse(session=tracking_pb2.SessionInfo(session_id="s", model="nano", window=window))


def result(sequence: int) -> tracking_pb2.TrackResponse:
    return tracking_pb2.TrackResponse(
        frame_result=tracking_pb2.FrameResult(sequence=sequence, frame_index=sequence - 1)
    )


def send_pictures(subject: TrackProtocol) -> int:
    count = 0
    while (step := sent(subject)) != "WAIT":
        if step == "VIDEO":
            subject.add_part(picture())
            count += 1
    return count


def test_order_of_a_whole_upload() -> None:
    subject = protocol()
    assert [sent(subject), sent(subject), sent(subject)] == ["config", "prompt", "VIDEO"]
    subject.add_part(chunk())
    assert [sent(subject), sent(subject)] == ["video_chunk", "VIDEO"]
    subject.add_part(None)
    assert [sent(subject), sent(subject)] == ["end_of_video", "WAIT"]
    subject.receive(tracking_pb2.TrackResponse(done=tracking_pb2.Done(frame_count=0)))
    assert subject.finished
    assert sent(subject) == "END"
    subject.end_of_stream()


def test_results_are_acknowledged_at_once_and_together() -> None:
    subject = protocol()
    for _ in range(2):
        sent(subject)
    subject.receive(session(4))
    prompted = tracking_pb2.PromptResult(sequence=1, object=wire_object(1, square(0)))
    assert isinstance(subject.receive(tracking_pb2.TrackResponse(prompt_result=prompted)), masklet.PromptResult)
    assert isinstance(subject.receive(result(2)), masklet.FrameResult)
    request = subject.next_request()
    assert isinstance(request, tracking_pb2.TrackRequest)
    assert request.ack.sequence == 2
    assert sent(subject) == "VIDEO"


def test_the_last_result_is_acknowledged_after_done() -> None:
    subject = protocol()
    subject.receive(result(1))
    subject.receive(tracking_pb2.TrackResponse(done=tracking_pb2.Done(frame_count=1)))
    assert [sent(subject), sent(subject)] == ["ack", "END"]


def test_later_prompts_go_before_the_next_part() -> None:
    subject = protocol()
    for _ in range(2):
        sent(subject)
    subject.prompt(CLICK)
    subject.remove_object(1)
    assert [sent(subject), sent(subject), sent(subject)] == ["prompt", "remove_object", "VIDEO"]


def test_closed_protocol_sends_nothing() -> None:
    subject = protocol()
    subject.close()
    assert sent(subject) == "END"


def test_chunks_are_never_held_back() -> None:
    subject = protocol()
    for _ in range(100):
        while sent(subject) != "VIDEO":
            pass
        subject.add_part(chunk())


def test_pictures_of_unknown_number_reach_the_lookahead_at_first_and_the_window_later() -> None:
    subject = protocol(pictures=True)
    assert send_pictures(subject) == LOOKAHEAD_FRAMES
    subject.receive(session(2))
    assert send_pictures(subject) == 0
    for sequence in range(1, LOOKAHEAD_FRAMES - 1):
        subject.receive(result(sequence))
        assert send_pictures(subject) == 0
    subject.receive(result(LOOKAHEAD_FRAMES - 1))
    assert send_pictures(subject) == 1


def test_pictures_of_known_number_reach_the_window() -> None:
    subject = protocol(pictures=True, frame_count=50)
    assert send_pictures(subject) == 1
    subject.receive(session(5))
    assert send_pictures(subject) == 4
    subject.receive(result(1))
    assert send_pictures(subject) == 1


def test_pictures_reach_a_window_larger_than_the_lookahead() -> None:
    subject = protocol(pictures=True)
    subject.receive(session(64))
    assert send_pictures(subject) == 64


def test_unknown_response_is_passed_over() -> None:
    assert protocol().receive(tracking_pb2.TrackResponse()) is None


@pytest.mark.parametrize(("field", "passes"), [("ack", False), ("ack.sequence", True), ("prompt.box", True)])
def test_the_reminder_to_acknowledge_is_not_the_callers(field: str, passes: bool) -> None:
    status = to_status(masklet.InvalidArgument.of(field, "is missing"))
    event = protocol().receive(tracking_pb2.TrackResponse(error=status))
    assert isinstance(event, masklet.InvalidArgument) is passes


def test_end_without_done_is_an_error() -> None:
    with pytest.raises(masklet.Unavailable, match="after 0 frames"):
        protocol().end_of_stream()


def test_mask_in_another_encoding_is_an_error() -> None:
    message = wire_object(1, square(0))
    message.mask.encoding = common_pb2.MASK_ENCODING_PNG
    frame = tracking_pb2.FrameResult(sequence=1, objects=[message])
    with pytest.raises(masklet.Internal, match="MASK_ENCODING_PNG"):
        protocol().receive(tracking_pb2.TrackResponse(frame_result=frame))


def test_time_falls_back_to_nanoseconds() -> None:
    frame = tracking_pb2.FrameResult(sequence=1, pts_nanoseconds=1_500_000_000)
    event = protocol().receive(tracking_pb2.TrackResponse(frame_result=frame))
    assert isinstance(event, masklet.FrameResult)
    assert event.pts_seconds == 1.5


# Corrections


def test_results_sent_again_make_no_room_for_pictures() -> None:
    subject = protocol(pictures=True, frame_count=100)
    subject.receive(session(2))
    assert send_pictures(subject) == 2
    again = result(1)
    again.frame_result.revision = 1
    frame = subject.receive(again)
    assert isinstance(frame, masklet.FrameResult)
    assert frame.revision == 1
    assert "frame_index=0, revision=1" in repr(frame)
    assert sent(subject) == "ack"
    assert sent(subject) == "WAIT"
    subject.receive(result(2))
    assert sent(subject) == "ack"
    assert send_pictures(subject) == 1


def test_with_a_correction_window_a_result_is_acknowledged_when_the_next_is_asked_for() -> None:
    config = track_config({"correction_window": 8})
    assert config.correction_window == 8
    subject = TrackProtocol(config, [CLICK], pictures=False)
    assert [sent(subject) for _ in range(2)] == ["config", "prompt"]
    subject.add_part(None)
    assert sent(subject) == "end_of_video"
    subject.acknowledge()
    subject.receive(session(4))
    subject.receive(result(1))
    assert sent(subject) == "WAIT", "the caller looks at it"
    subject.prompt(CLICK)
    subject.clear_prompts(3, 7)
    subject.acknowledge()
    assert sent(subject) == "prompt", "what was said of it comes first"
    cleared = subject.next_request()
    assert isinstance(cleared, tracking_pb2.TrackRequest)
    assert (cleared.clear_prompts.object_id, cleared.clear_prompts.frame_index) == (3, 7)
    acknowledged = subject.next_request()
    assert isinstance(acknowledged, tracking_pb2.TrackRequest)
    assert acknowledged.ack.sequence == 1
    assert sent(subject) == "WAIT"


def test_a_prompt_may_name_a_time() -> None:
    prompt = masklet.Prompt(2, pts_seconds=1.5, point_coords=[[1, 2]])
    subject = TrackProtocol(tracking_pb2.TrackConfig(), [prompt, CLICK], pictures=False)
    assert sent(subject) == "config"
    timed, plain = subject.next_request(), subject.next_request()
    assert isinstance(timed, tracking_pb2.TrackRequest)
    assert isinstance(plain, tracking_pb2.TrackRequest)
    assert timed.prompt.pts_seconds == 1.5
    assert not plain.prompt.HasField("pts_seconds")
    assert "pts_seconds=1.5" in repr(prompt)


@pytest.mark.parametrize("options", [{"pts_seconds": float("nan")}, {"pts_seconds": "1"}, {"pts_seconds": True}])
def test_a_time_is_a_number_of_seconds(options: dict[str, Any]) -> None:
    with pytest.raises(masklet.InvalidArgument, match="pts_seconds: must be a finite number of seconds"):
        masklet.Prompt(point_coords=[[1, 2]], **options)


def test_a_prompt_is_for_a_frame_or_for_a_time() -> None:
    with pytest.raises(masklet.InvalidArgument, match="pts_seconds: excludes frame_index"):
        masklet.Prompt(1, 3, [[1, 2]], pts_seconds=0.5)
