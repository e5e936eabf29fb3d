"""What a live client sends next, without a channel."""

from __future__ import annotations

from typing import Any

import pytest

from masklet import Delivery, Prompt
from masklet._protocol.live import MAX_PACKET_BYTES, MAX_UNSENT, LiveProtocol
from masklet._protocol.options import live_config
from masklet._protocol.track import Step
from masklet.v1 import common_pb2, tracking_pb2

MIB = 1024**2


def protocol(delivery: Delivery = "latest", prompts: Any = ()) -> LiveProtocol:
    return LiveProtocol(live_config({"delivery": delivery}), prompts)


def kinds(live: LiveProtocol) -> list[str | None]:
    """All that it sends before it waits or ends."""
    sent: list[str | None] = []
    while not isinstance(request := live.next_request(), Step):
        sent.append(request.WhichOneof("request"))
    return sent


def frame() -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(frame=common_pb2.Picture(data=b"x"))


def packet(size: int = 1) -> tracking_pb2.TrackRequest:
    return tracking_pb2.TrackRequest(packet=tracking_pb2.Packet(data=bytes(size)))


def session(window: int) -> tracking_pb2.TrackResponse:
    return tracking_pb2.TrackResponse(session=tracking_pb2.SessionInfo(window=window))


def result(sequence: int) -> tracking_pb2.TrackResponse:
    return tracking_pb2.TrackResponse(frame_result=tracking_pb2.FrameResult(sequence=sequence))


def taken(count: int) -> tracking_pb2.TrackResponse:
    return tracking_pb2.TrackResponse(packets_taken=tracking_pb2.PacketsTaken(count=count))


def test_the_configuration_says_how_frames_are_delivered() -> None:
    request = protocol("lossless").next_request()
    assert isinstance(request, tracking_pb2.TrackRequest)
    assert (request.config.live, request.config.delivery) == (True, tracking_pb2.DELIVERY_LOSSLESS)
    request = protocol("latest").next_request()
    assert isinstance(request, tracking_pb2.TrackRequest)
    assert request.config.delivery == tracking_pb2.DELIVERY_LATEST


def test_prompts_overtake_acknowledgements_and_both_overtake_video() -> None:
    live = protocol(prompts=[Prompt(1, point_coords=[[1, 1]])])
    live.push(frame())
    live.prompt_on(Prompt(2, point_coords=[[1, 1]]), None)
    live.receive(session(4))
    live.receive(result(1))
    live.end()
    assert kinds(live) == ["config", "prompt", "prompt", "ack", "frame", "end_of_video"]
    assert live.next_request() is Step.WAIT, "the server has the last word"


def test_a_prompt_is_for_the_next_frame_or_a_named_one() -> None:
    live = protocol()
    kinds(live)
    for index in (None, 7):
        live.prompt_on(Prompt(2, 3, point_coords=[[1, 1]]), index)
        request = live.next_request()
        assert isinstance(request, tracking_pb2.TrackRequest)
        assert request.prompt.on_next_frame is (index is None)
        if index is not None:
            assert request.prompt.frame_index == index


def test_room_for_what_is_pushed_is_bounded() -> None:
    live = protocol()
    for _ in range(MAX_UNSENT):
        assert live.has_room
        live.push(frame())
    assert not live.has_room
    assert kinds(live) == ["config", *["frame"] * MAX_UNSENT]
    assert live.has_room


@pytest.mark.parametrize(("delivery", "sent"), [("lossless", 2), ("latest", 4)])
def test_only_lossless_frames_are_held_back(delivery: Delivery, sent: int) -> None:
    live = protocol(delivery)
    live.receive(session(2))
    for _ in range(4):
        live.push(frame())
    assert kinds(live) == ["config", *["frame"] * sent]
    live.receive(result(1))
    assert kinds(live) == (["ack", "frame"] if delivery == "lossless" else ["ack"])


def test_packets_wait_until_the_server_has_room() -> None:
    live = protocol("lossless")
    for _ in range(4):
        live.push(packet(3 * MIB))
    assert kinds(live) == ["config", "packet", "packet"]
    live.receive(result(1))
    assert kinds(live) == ["ack"], "a result tells nothing of packets"
    live.receive(taken(1))
    assert kinds(live) == ["packet"]
    live.receive(taken(3))
    assert kinds(live) == ["packet"]


def test_one_packet_may_be_larger_than_all_that_may_wait() -> None:
    live = protocol("lossless")
    live.push(packet(MAX_PACKET_BYTES + 1))
    assert kinds(live) == ["config", "packet"]


def test_nothing_is_sent_after_the_end() -> None:
    live = protocol()
    live.end()
    assert live.is_over
    assert kinds(live) == ["config", "end_of_video"]
    live.receive(tracking_pb2.TrackResponse(done=tracking_pb2.Done()))
    assert live.next_request() is Step.END
