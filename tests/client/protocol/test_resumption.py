"""What a client sends again after a break, against a model of a server that takes a prefix of what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

import masklet
from masklet._protocol import resumption
from masklet._protocol.annotation import AnnotationProtocol
from masklet._protocol.live import LiveProtocol
from masklet._protocol.options import annotate_config, live_config, track_config
from masklet._protocol.track import Step, TrackProtocol
from masklet.v1 import common_pb2, tracking_pb2
from tests.support.scripted.fake_script import square, wire_object

CLICK = masklet.Prompt(point_coords=[[1, 2]])


class ModelServer:
    """One session: what it has taken, and the numbered responses that it has made.

    Attributes:
        video: Parts of the video, in order.
        requests: Numbers of requests, in order.
        before_request: How many parts were there when each request came.
    """

    def __init__(self) -> None:
        self.video: list[bytes] = []
        self.requests: list[int] = []
        self.before_request: dict[int, int] = {}
        self.has_ended = False
        self.acked = 0
        self.responses: list[tracking_pb2.TrackResponse] = []
        self.epoch = 0

    def attach(self) -> tracking_pb2.TrackResponse:
        self.epoch += 1
        info = tracking_pb2.SessionInfo(session_id="s", window=8, resume_token="t", epoch=self.epoch)
        return tracking_pb2.TrackResponse(session=info)

    def resumed(self, resume: tracking_pb2.Resume) -> list[tracking_pb2.TrackResponse]:
        """What a new call is answered by."""
        assert resume.token == "t"
        kind = "frame_count" if self.video and self.video[0].startswith(b"f") else "video_bytes"
        position: Any = {kind: len(self.video) if kind == "frame_count" else sum(map(len, self.video))}
        told = tracking_pb2.Resumed(
            how=tracking_pb2.RESUMPTION_ATTACHED,
            end_of_video_taken=self.has_ended,
            last_request_id=self.requests[-1] if self.requests else 0,
            **position,
        )
        return [self.attach(), tracking_pb2.TrackResponse(resumed=told), *self.responses[resume.last_response :]]

    def take(self, request: tracking_pb2.TrackRequest) -> None:
        kind = request.WhichOneof("request")
        if request.request_id:
            if request.request_id <= (self.requests[-1] if self.requests else 0):
                return
            self.requests.append(request.request_id)
            self.before_request[request.request_id] = len(self.video)
        elif kind == "video_chunk":
            assert not self.has_ended
            self.video.append(request.video_chunk)
            self._answer(len(self.video) - 1)
        elif kind == "frame":
            assert not self.has_ended
            self.video.append(request.frame.data)
            self._answer(len(self.video) - 1)
        elif kind == "end_of_video":
            self.has_ended = True
        elif kind == "ack":
            assert request.ack.sequence <= len(self.responses)
            self.acked = max(self.acked, request.ack.sequence)

    def _answer(self, frame_index: int) -> None:
        number = len(self.responses) + 1
        result = tracking_pb2.FrameResult(sequence=number, frame_index=frame_index)
        self.responses.append(tracking_pb2.TrackResponse(frame_result=result, number=number))


class Link:
    """A client and the model, joined by a network that breaks; reads the video as `RequestSender` does."""

    def __init__(self, protocol: TrackProtocol, parts: list[tracking_pb2.TrackRequest], *, reads_again: bool) -> None:
        self.protocol = protocol
        self.server = ModelServer()
        self.seen: list[int] = []
        self._all = parts
        self._parts = iter(parts)
        self._reads_again = reads_again
        self._under_way: list[tracking_pb2.TrackRequest] = []
        self._is_new = True

    def send(self, count: int) -> None:
        """Put so many messages on their way, if there are so many."""
        for _ in range(count):
            step = self.protocol.next_request()
            if step is Step.VIDEO:
                self._fetch()
            elif isinstance(step, tracking_pb2.TrackRequest):
                self._under_way.append(step)

    def _fetch(self) -> None:
        start = self.protocol.read_from
        self.protocol.reread()
        if start is not None:
            assert self._reads_again
            self._parts = parts_from(self._all, start)
        self.protocol.add_part(next(self._parts, None))

    def arrive(self, count: int) -> None:
        """The server takes so many messages, and the client all that is answered."""
        arrived, self._under_way = self._under_way[:count], self._under_way[count:]
        for request in arrived:
            if request.HasField("resume"):
                for response in self.server.resumed(request.resume):
                    self._receive(response)
            elif request.HasField("config"):
                self._receive(self.server.attach())
            else:
                before = len(self.server.responses)
                self.server.take(request)
                for response in self.server.responses[before:]:
                    self._receive(response)

    def swallow(self, count: int) -> None:
        """The server takes so many messages, and the network loses the answers and everything else."""
        if self.server.epoch:
            arrived = [one for one in self._under_way[:count] if not one.HasField("resume")]
            if len(arrived) == len(self._under_way[:count]):
                for request in arrived:
                    self.server.take(request)
        self._under_way.clear()

    def breaks(self) -> None:
        self._under_way.clear()
        if self.protocol.can_go_on:
            self.protocol.detach()
        else:
            pytest.fail("the session cannot go on")

    def _receive(self, response: tracking_pb2.TrackResponse) -> None:
        event = self.protocol.receive(response)
        if isinstance(event, masklet.FrameResult):
            self.seen.append(event.frame_index)


def parts_from(parts: list[tracking_pb2.TrackRequest], start: int) -> Iterator[tracking_pb2.TrackRequest]:
    if parts[0].HasField("frame"):
        return iter(parts[start:])
    whole = b"".join(part.video_chunk for part in parts)
    return iter([tracking_pb2.TrackRequest(video_chunk=whole[i : i + 3]) for i in range(start, len(whole), 3)])


def chunks(count: int) -> list[tracking_pb2.TrackRequest]:
    return [tracking_pb2.TrackRequest(video_chunk=b"%03d" % index) for index in range(count)]


def pictures(count: int) -> list[tracking_pb2.TrackRequest]:
    return [tracking_pb2.TrackRequest(frame=common_pb2.Picture(data=b"f%d" % index)) for index in range(count)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 6)),
        st.tuples(st.just("arrive"), st.integers(1, 6)),
        st.tuples(st.just("prompt"), st.just(0)),
        st.tuples(st.just("break"), st.integers(0, 6)),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(STEPS, st.booleans(), st.booleans())
def test_whatever_breaks_everything_arrives_once_and_in_order(
    steps: list[tuple[str, int]], reads_again: bool, of_pictures: bool
) -> None:
    parts = pictures(12) if of_pictures else chunks(12)
    config = track_config({})
    protocol = TrackProtocol(config, [CLICK, CLICK], pictures=of_pictures, reads_again=reads_again)
    link = Link(protocol, parts, reads_again=reads_again)
    link.send(1)
    link.arrive(1)
    prompts = 2
    for kind, count in steps:
        if kind == "send":
            link.send(count)
        elif kind == "arrive":
            link.arrive(count)
        elif kind == "prompt":
            protocol.prompt(CLICK)
            prompts += 1
        else:
            link.swallow(count)
            link.breaks()
    for _ in range(100):
        link.send(5)
        link.arrive(5)
    server = link.server
    assert server.has_ended
    assert b"".join(server.video) == b"".join(part.video_chunk + part.frame.data for part in parts)
    assert server.requests == list(range(1, prompts + 1))
    assert link.seen == list(range(len(server.responses))), "each result once, in order"
    assert server.acked == len(server.responses)


@pytest.mark.parametrize("reads_again", [True, False])
def test_a_first_call_that_was_never_answered_is_made_once_more(reads_again: bool) -> None:
    protocol = TrackProtocol(track_config({}), [CLICK], pictures=False, reads_again=reads_again)
    link = Link(protocol, chunks(4), reads_again=reads_again)
    link.send(6)  # config, prompt, and two parts, of which each is fetched and then sent
    link.breaks()
    for _ in range(10):
        link.send(3)
        link.arrive(3)
    assert link.server.epoch == 1
    assert b"".join(link.server.video) == b"000001002003"
    assert link.server.requests == [1]
    assert link.server.has_ended


def live() -> LiveProtocol:
    return LiveProtocol(live_config({"delivery": "lossless"}), [])


def test_prompts_of_a_live_stream_keep_their_place_between_the_frames() -> None:
    protocol = live()
    link = Link(protocol, [], reads_again=False)
    link.send(1)
    link.arrive(1)
    for index, part in enumerate(pictures(4)):
        if index == 2:
            protocol.prompt_on(CLICK, None)
        protocol.push(part)
        link.send(1 + (index == 2))
    link.swallow(1)  # the first frame arrives, all else is lost
    link.breaks()
    link.send(20)
    link.arrive(20)
    link.send(20)
    link.arrive(20)
    assert link.server.video == [b"f0", b"f1", b"f2", b"f3"]
    assert link.server.before_request == {1: 2}


def test_video_that_cannot_be_read_again_is_kept_until_the_server_has_it() -> None:
    protocol = live()
    link = Link(protocol, [], reads_again=False)
    link.send(1)
    link.arrive(1)
    for part in pictures(3):
        protocol.push(part)
    link.send(3)
    protocol.detach()
    assert asked(protocol).resume.can_rewind is True
    kept = tracking_pb2.InputKept(frame_count=2)
    protocol.receive(tracking_pb2.TrackResponse(input_kept=kept))
    protocol.detach()
    assert asked(protocol).resume.can_rewind is False, "the first two are let go"
    told = tracking_pb2.Resumed(how=tracking_pb2.RESUMPTION_ATTACHED, frame_count=1)
    with pytest.raises(masklet.Unavailable, match="from 1 on; this client kept 64 MiB of it, from 2 on"):
        protocol.receive(tracking_pb2.TrackResponse(resumed=told))


def test_not_more_video_is_kept_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "KEPT_BYTES", 3_000)
    protocol = live()
    link = Link(protocol, [], reads_again=False)
    link.send(1)
    link.arrive(1)
    for _ in range(8):
        protocol.push(tracking_pb2.TrackRequest(frame=common_pb2.Picture(data=bytes(1_000))))
        link.send(1)
    protocol.detach()
    assert asked(protocol).resume.can_rewind is False
    told = tracking_pb2.Resumed(how=tracking_pb2.RESUMPTION_ATTACHED, frame_count=6)
    protocol.receive(tracking_pb2.TrackResponse(resumed=told))
    assert [asked(protocol).WhichOneof("request") for _ in range(2)] == ["frame", "frame"]
    assert protocol.next_request() is Step.WAIT


def asked(protocol: TrackProtocol) -> tracking_pb2.TrackRequest:
    request = protocol.next_request()
    assert isinstance(request, tracking_pb2.TrackRequest)
    return request


def begun(*, reads_again: bool = True) -> TrackProtocol:
    protocol = TrackProtocol(track_config({}), [CLICK], pictures=False, reads_again=reads_again)
    assert asked(protocol).HasField("config")
    protocol.receive(ModelServer().attach())
    assert asked(protocol).request_id == 1
    return protocol


def taken(protocol: TrackProtocol, number: int, request_id: int, **when: int) -> None:
    answer = tracking_pb2.Applied(**when)
    protocol.receive(tracking_pb2.TrackResponse(applied=answer, number=number, request_id=request_id))


def answered(protocol: TrackProtocol, number: int, sequence: int, request_id: int) -> None:
    answer = tracking_pb2.PromptResult(sequence=sequence, object=wire_object(1, square(0)))
    protocol.receive(tracking_pb2.TrackResponse(prompt_result=answer, number=number, request_id=request_id))


def frame(protocol: TrackProtocol, number: int, sequence: int, frame_index: int) -> None:
    result = tracking_pb2.FrameResult(sequence=sequence, frame_index=frame_index)
    protocol.receive(tracking_pb2.TrackResponse(frame_result=result, number=number))


def test_a_session_that_begins_anew_is_told_what_took_effect_and_when() -> None:
    protocol = begun()
    taken(protocol, 1, 1)
    answered(protocol, 2, 1, 1)
    frame(protocol, 3, 2, 0)
    assert asked(protocol).ack.sequence == 2
    protocol.prompt(masklet.Prompt(frame_index=50, point_coords=[[3, 4]]))
    protocol.prompt(masklet.Prompt(frame_index=0, point_coords=[[5, 6]]))
    assert [asked(protocol).request_id, asked(protocol).request_id] == [2, 3]
    taken(protocol, 4, 3, applied_after_frame=0, applied_after_sequence=2)
    answered(protocol, 5, 3, 3)
    protocol.detach()
    resume = asked(protocol).resume
    assert (resume.last_response, resume.last_sequence, resume.can_rewind) == (5, 3, True)
    assert resume.config == track_config({})
    assert [(one.request_id, one.applied_after_sequence) for one in resume.operations] == [(1, 0), (3, 2)]
    assert not resume.operations[0].HasField("applied_after_frame")
    assert resume.operations[1].applied_after_frame == 0
    assert resume.last_ack == 2, "the prompt's answer came after the last one"
    assert protocol.next_request() is Step.WAIT, "the server has not said from where"
    told = tracking_pb2.Resumed(how=tracking_pb2.RESUMPTION_REWOUND)
    protocol.receive(tracking_pb2.TrackResponse(resumed=told))
    assert asked(protocol).request_id == 2, "the one without an answer"
    assert asked(protocol).ack.sequence == 3
    assert protocol.next_request() is Step.VIDEO
    assert protocol.read_from == 0


def refused(number: int, request_id: int) -> tracking_pb2.TrackResponse:
    return tracking_pb2.TrackResponse(
        error=status_pb2.Status(code=3, message="no"), number=number, request_id=request_id
    )


def test_requests_that_were_refused_took_no_effect() -> None:
    protocol = begun()
    protocol.receive(refused(1, 1))
    protocol.detach()
    assert list(asked(protocol).resume.operations) == []


def test_a_refusal_that_comes_again_is_told_once() -> None:
    """As when a session begins anew with a request that was taken first, and refused on its frame."""
    protocol = begun()
    taken(protocol, 1, 1)
    assert isinstance(protocol.receive(refused(2, 1)), masklet.InvalidArgument)
    protocol.detach()
    assert [one.request_id for one in asked(protocol).resume.operations] == [1]
    protocol.receive(tracking_pb2.TrackResponse(resumed=tracking_pb2.Resumed(how=tracking_pb2.RESUMPTION_REWOUND)))
    assert protocol.receive(refused(3, 1)) is None
    frame(protocol, 4, 1, 0)


@pytest.mark.parametrize("number", [1, 3])
def test_responses_that_are_missing_or_come_twice_are_noticed(number: int) -> None:
    protocol = begun()
    frame(protocol, 1, 1, 0)
    with pytest.raises(masklet.Internal, match=f"response {number} after response 1"):
        frame(protocol, number, number, 1)


def test_a_server_that_keeps_no_sessions_makes_the_session_like_any_other() -> None:
    protocol = TrackProtocol(track_config({}), [CLICK], pictures=False)
    asked(protocol)
    protocol.receive(tracking_pb2.TrackResponse(session=tracking_pb2.SessionInfo(session_id="s")))
    assert not protocol.can_go_on
    assert protocol.leave() == []


def test_a_caller_that_leaves_early_has_the_server_told() -> None:
    protocol = begun()
    frame(protocol, 1, 1, 0)
    farewell = protocol.leave()
    assert [one.WhichOneof("request") for one in farewell] == ["resume", "cancel"]
    assert (farewell[0].resume.token, farewell[0].resume.last_response) == ("t", 1)
    assert protocol.next_request() is Step.END
    assert protocol.leave() == [], "once"


def test_nobody_is_told_after_the_end() -> None:
    protocol = begun()
    protocol.receive(tracking_pb2.TrackResponse(done=tracking_pb2.Done(), number=1))
    assert protocol.leave() == []


def test_work_on_request_begins_anew_where_the_server_has_lost_it() -> None:
    protocol = AnnotationProtocol(annotate_config({}), reads_again=True)
    asked(protocol)
    protocol.take(ModelServer().attach())
    protocol.ask(tracking_pb2.TrackRequest(reset=tracking_pb2.Reset()))
    assert asked(protocol).request_id == 2
    protocol.detach()
    assert asked(protocol).resume.can_rewind is False, "it is no work of the server's"
    protocol.take(tracking_pb2.TrackResponse(resumed=tracking_pb2.Resumed(how=tracking_pb2.RESUMPTION_ATTACHED)))
    assert asked(protocol).request_id == 2
    protocol.detach()
    asked(protocol)
    assert protocol.can_begin_anew
    protocol.begin_anew()
    protocol.detach()
    assert asked(protocol).HasField("config")
    assert asked(protocol).request_id == 2
    assert protocol.read_from == 0
