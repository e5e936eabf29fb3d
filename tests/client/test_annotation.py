"""`Annotation` and `AsyncAnnotation` against a scripted server on real loopback gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest

import masklet
from masklet import Annotation
from masklet._media.uploads import Upload
from masklet._protocol.annotation import AnnotationProtocol, propagate_request
from masklet._protocol.options import annotate_config
from masklet._protocol.track import Step
from masklet._protocol.wire import prompt_to_wire
from masklet._transport.channel import Channel
from masklet._transport.endpoint import Endpoint
from masklet.v1 import tracking_pb2
from tests.support.scripted.fake_script import HEIGHT, WIDTH, Script, square, status
from tests.support.scripted.fake_server import FakeServer

CLICK = masklet.Prompt(object_id=3, point_coords=[[20, 20]])
PATIENCE = 10.0


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Script(frame_count=8)) as running:
        yield running


@pytest.fixture
def annotation(server: FakeServer) -> Iterator[masklet.Annotation]:
    with masklet.Client(server.address) as client, client.annotate(b"video") as begun:
        yield begun


def kinds(server: FakeServer) -> list[str]:
    """What the client asked, in order."""
    (session,) = server.sessions
    return [kind for kind in session.kinds() if kind not in ("config", "video_chunk", "end_of_video", "ack")]


def test_a_prompt_is_answered(server: FakeServer, annotation: masklet.Annotation) -> None:
    seen = annotation.prompt(masklet.Prompt(object_id=3, frame_index=2, point_coords=[[20, 20]]))
    assert (seen.frame_index, seen.object.object_id, seen.object.logits) == (2, 3, None)
    np.testing.assert_array_equal(seen.object.mask, square(2))
    assert (annotation.session_id, annotation.model) == ("fake-1", "nano")
    config = server.sessions[0].config
    assert config.propagation == tracking_pb2.PROPAGATION_ON_REQUEST
    assert not config.return_logits


def test_the_video_is_described_and_its_frames_are_counted(annotation: masklet.Annotation) -> None:
    assert (annotation.video.height, annotation.video.width) == (HEIGHT, WIDTH)
    assert annotation.frame_count == 8


def test_logits_come_if_they_are_asked_for(server: FakeServer) -> None:
    with masklet.Client(server.address) as client, client.annotate(b"video", return_logits=True) as annotation:
        logits = annotation.prompt(CLICK).object.logits
    assert logits is not None
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, [[0, 1], [2, 3]])


def test_pictures_do_not_wait_for_results(server: FakeServer) -> None:
    pictures = [np.full((HEIGHT, WIDTH), i, np.uint8) for i in range(40)]
    with masklet.Client(server.address) as client, client.annotate(iter(pictures)) as annotation:
        assert annotation.frame_count == 0, "the fake believes the client, which does not know"
        assert len(server.sessions[0].frames) == 40


def test_a_refused_prompt_raises_and_the_session_goes_on(annotation: masklet.Annotation) -> None:
    with pytest.raises(masklet.InvalidArgument) as caught:
        annotation.prompt(masklet.Prompt(object_id=3, frame_index=8, point_coords=[[20, 20]]))
    assert caught.value.violations[0].field == "prompt.frame_index"
    assert annotation.prompt(CLICK).object.object_id == 3


def arrives(look: Callable[[], bool]) -> bool:
    """Whether something comes to hold; what the client sends without an answer is on its way for a moment."""
    deadline = time.monotonic() + PATIENCE
    while not look() and time.monotonic() < deadline:
        time.sleep(0.005)
    return look()


def looked_at(server: FakeServer) -> list[int]:
    """The frames that the client has told to prepare, in order."""
    return [m.prepare.frame_index for m in server.sessions[0].messages if m.HasField("prepare")]


def test_a_frame_is_prepared_without_an_answer(server: FakeServer, annotation: masklet.Annotation) -> None:
    annotation.prompt(CLICK)
    annotation.prepare(5)
    assert arrives(lambda: looked_at(server) == [5])
    annotation.prepare(6)
    assert annotation.prompt(CLICK).object.object_id == 3, "the next answer is that of the next request"
    assert arrives(lambda: looked_at(server) == [5, 6])
    assert [m.request_id for m in server.sessions[0].messages if m.HasField("prepare")] == [0, 0]


def test_a_preparation_does_not_end_a_propagation(server: FakeServer, annotation: masklet.Annotation) -> None:
    server.script.frame_count = 100
    annotation.prompt(CLICK)
    for count, _ in enumerate(annotation.propagate(), 1):
        annotation.prepare(count)
    assert count == 100
    assert "stop_propagation" not in kinds(server)
    assert arrives(lambda: looked_at(server)[-1:] == [100])


@pytest.mark.parametrize("frame_index", [-1, 2**32, True])
def test_what_is_no_frame_index_is_not_prepared(annotation: masklet.Annotation, frame_index: int) -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"frame_index: is .*, must be a whole number from 0"):
        annotation.prepare(frame_index)


def test_an_ended_session_prepares_nothing(annotation: masklet.Annotation) -> None:
    annotation.close()
    with pytest.raises(masklet.FailedPrecondition, match="this annotation is closed"):
        annotation.prepare(1)


def test_a_server_that_does_not_know_the_message_is_sent_none(server: FakeServer) -> None:
    server.script.can_prepare = False
    with masklet.Client(server.address) as client, client.annotate(b"video") as annotation:
        annotation.prepare(1)
        annotation.prompt(CLICK)
        annotation.prepare(2)
        annotation.prompt(CLICK)
    assert server.sessions[0].ended.wait(PATIENCE)
    assert looked_at(server) == []


def told() -> tracking_pb2.TrackResponse:
    return tracking_pb2.TrackResponse(session=tracking_pb2.SessionInfo(can_prepare=True))


def test_only_the_last_frame_that_is_looked_at_is_sent_and_after_all_requests() -> None:
    protocol = AnnotationProtocol(annotate_config({}))
    for index in range(3):
        protocol.prepare(index)
    assert sent(protocol) == ["config"], "what the server can do is not known yet"
    protocol.take(told())
    protocol.ask(tracking_pb2.TrackRequest(prompt=prompt_to_wire(CLICK)))
    protocol.prepare(3)
    protocol.prepare(4)
    assert sent(protocol) == ["prompt", "prepare 4"]
    protocol.prepare(5)
    protocol.close()
    assert protocol.next_request() is Step.END


def sent(protocol: AnnotationProtocol) -> list[str]:
    """What the protocol sends before it asks for the video."""
    kinds = []
    while isinstance(request := protocol.next_request(), tracking_pb2.TrackRequest):
        kind = request.WhichOneof("request") or ""
        kinds.append(f"{kind} {request.prepare.frame_index}" if kind == "prepare" else kind)
    return kinds


def test_propagation_goes_where_it_is_sent(annotation: masklet.Annotation) -> None:
    annotation.prompt(CLICK)
    assert [f.frame_index for f in annotation.propagate()] == list(range(8))
    assert [f.frame_index for f in annotation.propagate(5, max_frames=2, direction="backward")] == [5, 4, 3]
    assert [f.frame_index for f in annotation.propagate(3, max_frames=0)] == [3]


def test_propagation_without_prompts_raises_from_the_loop(annotation: masklet.Annotation) -> None:
    frames = annotation.propagate()
    with pytest.raises(masklet.FailedPrecondition, match="nothing is prompted"):
        next(frames)
    assert annotation.prompt(CLICK).object.object_id == 3, "and what comes after it is answered"


def test_nothing_is_asked_before_the_loop_begins(server: FakeServer, annotation: masklet.Annotation) -> None:
    annotation.prompt(CLICK)
    frames = annotation.propagate()
    assert kinds(server) == ["prompt"]
    next(frames)
    assert kinds(server) == ["prompt", "propagate"]


def test_results_wait_for_the_loop(server: FakeServer, annotation: masklet.Annotation) -> None:
    server.script.frame_count = 100
    annotation.prompt(CLICK)
    assert sum(1 for _ in annotation.propagate()) == 100
    assert server.sessions[0].max_unacked <= server.script.window


def test_leaving_the_loop_stops_the_propagation(server: FakeServer, annotation: masklet.Annotation) -> None:
    server.script.frame_count = 1000
    annotation.prompt(CLICK)
    for frame in annotation.propagate():
        if frame.frame_index == 2:
            break
    assert kinds(server)[-1] == "stop_propagation"
    assert annotation.prompt(CLICK).frame_index == 0
    assert server.sessions[0].results_sent < 20
    assert next(annotation.propagate(7)).frame_index == 7


def test_with_a_window_of_one_nothing_is_tracked_that_nobody_asked_for(server: FakeServer) -> None:
    server.script.frame_count, server.script.window = 1000, 1
    with masklet.Client(server.address) as client, client.annotate(b"video", window=1) as annotation:
        annotation.prompt(CLICK)
        for frame in annotation.propagate():
            if frame.frame_index == 2:
                break
        assert server.sessions[0].config.window == 1
        assert server.sessions[0].results_sent == 3
        assert next(annotation.propagate(7)).frame_index == 7
        annotation.reset()
        assert server.sessions[0].results_sent == 4


def test_a_request_ends_the_propagation_before_it(server: FakeServer, annotation: masklet.Annotation) -> None:
    server.script.frame_count = 1000
    annotation.prompt(CLICK)
    frames = annotation.propagate()
    next(frames)
    assert annotation.prompt(CLICK).object.object_id == 3
    with pytest.raises(masklet.FailedPrecondition, match="ended by a later request"):
        next(frames)
    first, second = annotation.propagate(), annotation.propagate(4)
    next(first)
    assert next(second).frame_index == 4
    first.close()
    assert next(second).frame_index == 5, "the end of the old loop does not stop the new one"


def test_stop_from_another_thread_ends_the_loop(server: FakeServer, annotation: masklet.Annotation) -> None:
    server.script.frame_count, server.script.seconds_per_frame = 1000, 0.01
    annotation.prompt(CLICK)
    threading.Timer(0.1, annotation.stop).start()
    assert 0 < sum(1 for _ in annotation.propagate()) < 1000
    annotation.reset()


def test_stop_without_a_propagation_does_nothing(annotation: masklet.Annotation) -> None:
    annotation.stop()
    assert annotation.prompt(CLICK).object.object_id == 3
    assert len(list(annotation.propagate())) == 8


def test_what_has_no_result_is_confirmed(server: FakeServer, annotation: masklet.Annotation) -> None:
    annotation.prompt(CLICK)
    left = annotation.clear_prompts(3, 0)
    assert (left.object.area, left.object.visible) == (0, False)
    annotation.remove_object(3)
    annotation.reset()
    assert kinds(server) == ["prompt", "clear_prompts", "remove_object", "reset"]
    with pytest.raises(masklet.NotFound, match="no such object"):
        annotation.remove_object(4)


def test_a_failed_session_says_why_as_often_as_it_is_asked() -> None:
    failure = status(grpc.StatusCode.NOT_FOUND, "no such model")
    with FakeServer(Script(failure=failure)) as server, masklet.Client(server.address) as client:
        annotation = client.annotate(b"video", model="huge")
        for _ in range(2):
            with pytest.raises(masklet.NotFound, match="no such model"):
                annotation.prompt(CLICK)
        with pytest.raises(masklet.NotFound, match="no such model"):
            _ = annotation.video


def test_a_video_that_cannot_be_read_is_the_callers_error(server: FakeServer) -> None:
    heard = threading.Event()

    def pictures() -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        yield np.zeros((HEIGHT, WIDTH), np.uint8)
        assert heard.wait(PATIENCE)
        raise OSError("the disk is gone")

    with masklet.Client(server.address) as client, client.annotate(pictures()) as annotation:
        assert annotation.video.height == HEIGHT  # a call that ends before would not reach the server
        heard.set()
        with pytest.raises(OSError, match="the disk is gone"):
            _ = annotation.frame_count
        assert server.sessions[0].ended.wait(PATIENCE)


def test_closing_ends_the_call(server: FakeServer, annotation: masklet.Annotation) -> None:
    annotation.prompt(CLICK)
    frames = annotation.propagate()
    next(frames)
    annotation.close()
    assert server.sessions[0].ended.wait(PATIENCE)
    with pytest.raises(masklet.FailedPrecondition, match="is closed"):
        annotation.prompt(CLICK)
    with pytest.raises(masklet.FailedPrecondition, match="is closed"):
        next(frames)


def test_closing_wakes_a_request_that_waits(server: FakeServer, annotation: masklet.Annotation) -> None:
    server.script.frame_count, server.script.seconds_per_frame = 1000, 0.05
    annotation.prompt(CLICK)
    threading.Timer(0.1, annotation.close).start()
    with pytest.raises(masklet.FailedPrecondition, match="is closed"):
        for _ in annotation.propagate():
            pass


def test_dropping_it_ends_the_call(server: FakeServer) -> None:
    with masklet.Client(server.address) as client:
        client.annotate(b"video").prompt(CLICK)
        gc.collect()
        assert server.sessions[0].ended.wait(PATIENCE)


def test_the_answer_of_an_interrupted_request_is_not_taken_for_the_next_ones(server: FakeServer) -> None:
    channel = Channel(Endpoint.of(server.address), PATIENCE)
    protocol = AnnotationProtocol(annotate_config({}))
    with (
        contextlib.closing(channel),
        Annotation(channel.track_method({}), protocol, Upload(iter(()), pictures=False)) as annotation,
    ):
        protocol.ask(tracking_pb2.TrackRequest(prompt=prompt_to_wire(CLICK)))  # and nobody waits for it
        protocol.ask(propagate_request(0, 3, "forward"))
        seen = annotation.prompt(masklet.Prompt(object_id=5, frame_index=4, point_coords=[[20, 20]]))
    assert (seen.object.object_id, seen.frame_index) == (5, 4)
    assert kinds(server) == ["prompt", "propagate", "prompt"]


def test_cancelling_says_so(annotation: masklet.Annotation) -> None:
    annotation.prompt(CLICK)
    annotation.cancel()
    with pytest.raises(masklet.Cancelled):
        annotation.prompt(CLICK)


def test_threads_take_turns(annotation: masklet.Annotation) -> None:
    found: list[int] = []

    def ask(object_id: int) -> None:
        for _ in range(5):
            found.append(annotation.prompt(masklet.Prompt(object_id, point_coords=[[9, 9]])).object.object_id)

    threads = [threading.Thread(target=ask, args=(object_id,)) for object_id in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1] * 5 + [2] * 5 + [3] * 5


@pytest.mark.parametrize(
    ("arguments", "field"),
    [((-1, None, "forward"), "start_frame_index"), ((0, 2**32, "both"), "max_frames"), ((0, 1, "up"), "direction")],
)
def test_a_wrong_range_is_refused_at_once(arguments: tuple[int, int | None, str], field: str) -> None:
    with pytest.raises(masklet.InvalidArgument) as caught:
        propagate_request(*arguments)
    assert caught.value.violations[0].field == field


def test_the_same_awaited(server: FakeServer) -> None:
    async def run() -> None:
        async with masklet.AsyncClient(server.address) as client, client.annotate(b"video") as annotation:
            assert (await annotation.video()).height == HEIGHT
            assert await annotation.frame_count() == 8
            assert (await annotation.prompt(CLICK)).object.object_id == 3
            annotation.prepare(7)
            assert annotation.session_id == "fake-1"
            assert annotation.model == "nano"
            assert [f.frame_index async for f in annotation.propagate(6)] == [6, 7]
            server.script.frame_count = 1000
            async for frame in annotation.propagate():
                if frame.frame_index == 2:
                    break
            assert (await annotation.clear_prompts(3, 0)).object.area == 0
            async for frame in annotation.propagate():
                if frame.frame_index == 2:
                    annotation.stop()
            assert frame.frame_index < 20
            await annotation.remove_object(3)
            await annotation.reset()
            with pytest.raises(masklet.NotFound):
                await annotation.remove_object(4)
            assert looked_at(server) == [7]
        with pytest.raises(masklet.FailedPrecondition, match="is closed"):
            await annotation.prompt(CLICK)

    asyncio.run(run())
    assert server.sessions[0].ended.wait(PATIENCE)


def test_a_task_that_is_cancelled_leaves_the_session_usable(server: FakeServer) -> None:
    async def run() -> None:
        async with masklet.AsyncClient(server.address) as client, client.annotate(b"video") as annotation:
            await annotation.prompt(CLICK)
            server.script.frame_count, server.script.seconds_per_frame = 1000, 0.02
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_drain(annotation), 0.1)
            assert (await annotation.prompt(CLICK)).object.object_id == 3

    asyncio.run(run())


async def _drain(annotation: masklet.AsyncAnnotation) -> None:
    async for _ in annotation.propagate():
        pass
