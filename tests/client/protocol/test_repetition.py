"""What of a session on request is asked again in a session that begins anew, and what of its answers is new."""

from __future__ import annotations

import pytest

import masklet
from masklet._protocol import repetition
from masklet._protocol.annotation import propagate_request
from masklet._protocol.repetition import RequestHistory
from masklet.v1 import common_pb2, tracking_pb2

Request = tracking_pb2.TrackRequest


class Work:
    """A history, and a server that numbers results as a real one does."""

    def __init__(self) -> None:
        self.history = RequestHistory()
        self.sequence = 0

    def ask(self, number: int, request: Request) -> None:
        request.request_id = number
        self.history.note(request)

    def prompt(self, number: int) -> None:
        self.ask(number, Request(prompt=common_pb2.Prompt(object_id=1)))
        assert self.prompted(number)

    def prompted(self, number: int) -> bool:
        self.sequence += 1
        result = tracking_pb2.PromptResult(sequence=self.sequence)
        return self.history.take(tracking_pb2.TrackResponse(prompt_result=result, request_id=number))

    def tracked(self, number: int, *frames: int) -> list[bool]:
        return [self._tracked(number, frame) for frame in frames]

    def _tracked(self, number: int, frame: int) -> bool:
        self.sequence += 1
        result = tracking_pb2.FrameResult(sequence=self.sequence, frame_index=frame)
        return self.history.take(tracking_pb2.TrackResponse(frame_result=result, request_id=number))

    def done(self, number: int, *, stopped: bool = False) -> bool:
        done = tracking_pb2.PropagationDone(stopped=stopped)
        return self.history.take(tracking_pb2.TrackResponse(propagation_done=done, request_id=number))

    def applied(self, number: int) -> bool:
        return self.history.take(tracking_pb2.TrackResponse(applied=tracking_pb2.Applied(), request_id=number))

    def refused(self, number: int) -> bool:
        return self.history.take(tracking_pb2.TrackResponse(error={"message": "no"}, request_id=number))

    def begins_anew(self) -> None:
        self.history.begin_anew()
        self.sequence = 0

    def is_repeating(self) -> bool:
        return self.history.is_repeating

    def next(self) -> Request:
        request = self.history.next_request()
        assert request is not None
        assert self.history.next_request() is None, "one at a time"
        return request


def span(request: Request) -> tuple[int, str, int | None]:
    propagate = request.propagate
    most = propagate.max_frames if propagate.HasField("max_frames") else None
    return request.request_id, tracking_pb2.Direction.Name(propagate.direction).removeprefix("DIRECTION_"), most


def test_what_took_effect_is_asked_again_in_order_and_what_was_refused_is_not() -> None:
    work = Work()
    work.prompt(2)
    work.ask(4, Request(prompt=common_pb2.Prompt(object_id=99)))
    assert work.refused(4)
    work.ask(6, propagate_request(None, None, "forward"))
    assert work.tracked(6, 0, 1, 2) == [True] * 3
    assert work.done(6)
    work.ask(8, Request(remove_object=tracking_pb2.RemoveObject(object_id=1)))
    assert not work.is_repeating()
    work.begins_anew()
    assert work.is_repeating()
    assert work.next().request_id == 2
    assert not work.prompted(2)
    assert span(work.next()) == (6, "FORWARD", None)
    assert work.tracked(6, 0, 1, 2) == [False] * 3
    assert not work.done(6)
    assert work.next().request_id == 8, "which was not answered"
    assert not work.is_repeating()
    assert work.applied(8), "its answer is new"


def test_of_a_propagation_under_way_only_the_rest_is_new() -> None:
    work = Work()
    work.prompt(2)
    work.ask(4, propagate_request(0, None, "forward"))
    work.tracked(4, 0, 1, 2)
    work.begins_anew()
    work.next()
    work.prompted(2)
    assert span(work.next()) == (4, "FORWARD", None)
    assert work.tracked(4, 0, 1) == [False] * 2
    assert work.is_repeating(), "a stop would come too early"
    assert work.tracked(4, 2, 3) == [False, True]
    assert not work.is_repeating()
    assert work.done(4)


@pytest.mark.parametrize(
    ("direction", "max_frames", "frames", "again"),
    [
        ("forward", None, (3, 4, 5), [(4, "FORWARD", 2)]),
        ("backward", 7, (3, 2), [(4, "BACKWARD", 1)]),
        ("both", 4, (3, 4), [(4, "FORWARD", 1)]),
        ("both", 2, (3, 4, 5, 3, 2), [(3, "FORWARD", 2), (4, "BACKWARD", 1)]),
        ("both", None, (3, 4, 5, 3), [(3, "FORWARD", None), (4, "BACKWARD", 0)]),
        ("both", 0, (3, 3), [(3, "FORWARD", 0), (4, "BACKWARD", 0)]),
        ("forward", None, (), []),
    ],
)
@pytest.mark.parametrize("is_done", [True, False])
def test_a_stopped_propagation_is_repeated_as_far_as_it_came(
    direction: masklet.Direction,
    max_frames: int | None,
    frames: tuple[int, ...],
    again: list[tuple[int, str, int | None]],
    is_done: bool,
) -> None:
    work = Work()
    work.prompt(2)
    work.ask(4, propagate_request(3, max_frames, direction))
    work.tracked(4, *frames)
    work.ask(6, Request(stop_propagation=tracking_pb2.StopPropagation()))
    if is_done:
        work.done(4, stopped=True)
    work.begins_anew()
    work.next()
    assert not work.prompted(2)
    if not is_done and not frames:
        assert span(work.next()) == (4, "FORWARD", 0), "one frame, which might have been on its way"
        assert work.tracked(4, 3) == [True]
        assert work.done(4)
        return
    for one in again:
        request = work.next()
        assert span(request) == one
        parts = frames if len(again) == 1 else frames[:-2] if one is again[0] else frames[-2:]
        if max_frames is None and len(again) == 2:
            parts = frames[:3] if one is again[0] else frames[3:]
        if max_frames == 0 and len(again) == 2:
            parts = frames[:1] if one is again[0] else frames[1:]
        assert not any(work.tracked(request.request_id, *parts))
        assert work.done(request.request_id) == (not is_done and one is again[-1])
    assert not work.is_repeating()


def test_a_stop_that_is_sent_again_cuts_off_nothing_that_the_caller_has() -> None:
    work = Work()
    work.prompt(2)
    work.ask(4, propagate_request(3, None, "both"))
    work.tracked(4, 3, 4, 5, 3, 2)
    stop = Request(stop_propagation=tracking_pb2.StopPropagation())
    for number in (6, 8):
        work.ask(number, stop)
        work.begins_anew()
        work.next()
        work.prompted(2)
        assert span(work.next()) == (3, "FORWARD", None)
        work.tracked(3, 3, 4, 5)
        assert not work.done(3)
        assert span(work.next()) == (4, "BACKWARD", 1)
        assert not any(work.tracked(4, 3, 2))
    assert work.done(4)


def test_a_propagation_that_failed_midway_is_repeated_as_far_as_it_came() -> None:
    work = Work()
    work.prompt(2)
    work.ask(4, propagate_request(0, None, "forward"))
    work.tracked(4, 0, 1)
    assert work.refused(4)
    assert work.done(4, stopped=True)
    work.begins_anew()
    work.next()
    work.prompted(2)
    assert span(work.next()) == (4, "FORWARD", 1)


def test_nothing_before_a_reset_is_asked_again_and_results_are_counted_on() -> None:
    work = Work()
    work.prompt(2)
    work.prompt(4)
    work.ask(6, Request(reset=tracking_pb2.Reset()))
    assert work.applied(6)
    work.prompt(8)
    for _ in range(2):  # in the second session, and in the third one
        work.begins_anew()
        assert work.history.acknowledgement(3) == 0, "the session has sent nothing yet"
        assert work.next().request_id == 8
        assert not work.prompted(8)
        assert (work.history.reached, work.history.acknowledgement(3)) == (3, 1)
    work.prompt(10)
    assert work.history.reached == 4


def test_a_server_that_does_otherwise_is_noticed() -> None:
    work = Work()
    work.prompt(2)
    work.ask(4, propagate_request(0, 1, "forward"))
    work.tracked(4, 0, 1)
    work.done(4)
    work.begins_anew()
    work.next()
    with pytest.raises(masklet.Unavailable, match="does not repeat request 2: no"):
        work.refused(2)
    work.begins_anew()
    work.next()
    work.prompted(2)
    work.next()
    work.tracked(4, 0)
    with pytest.raises(masklet.Unavailable, match="gave 2 results in place of 3"):
        work.done(4)
    work.begins_anew()
    work.next()
    work.prompted(2)
    work.next()
    with pytest.raises(masklet.Unavailable, match="more results when it repeats request 4"):
        work.tracked(4, 0, 1, 2)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repetition, "MAX_REQUEST_BYTES", 30)
    work = Work()
    for number in range(2, 20, 2):
        work.prompt(number)
    assert not work.history.is_complete
    work.ask(20, Request(reset=tracking_pb2.Reset()))
    work.applied(20)
    assert work.history.is_complete, "nothing before the reset is needed"
