"""What a running call promises: prompts in any form, its video, its end, and how it prints."""

from __future__ import annotations

import threading
from collections.abc import Callable

import grpc
import numpy as np
import pytest

import masklet
from tests.support.scripted.fake_script import HEIGHT, WIDTH, Script, status
from tests.support.scripted.fake_server import FakeServer

ONE = masklet.Prompt(object_id=1, point_coords=[[20, 20]])
TWO = masklet.Prompt(object_id=2, point_coords=[[30, 20]])
Requests = list[Callable[[masklet.Tracking], None]]
REQUESTS: Requests = [
    lambda tracking: tracking.add_prompt(TWO),
    lambda tracking: tracking.prompt(TWO),
    lambda tracking: tracking.remove_object(1),
    lambda tracking: tracking.clear_prompts(1, 0),
]


@pytest.mark.parametrize("prompts", [(ONE, TWO), ([ONE, TWO],), ((ONE,), [TWO]), (iter([ONE, TWO]),)])
def test_prompts_are_given_one_by_one_or_as_a_list(prompts: tuple[masklet.Prompt, ...]) -> None:
    with FakeServer() as server, masklet.Client(server.address) as client:
        assert [sorted(frame.objects) for frame in client.track(b"video", *prompts)] == [[1, 2]] * 5


def test_prompts_have_a_name() -> None:
    with FakeServer() as server, masklet.Client(server.address) as client:
        assert len(list(client.track(b"video", prompts=[ONE]))) == 5
        assert len(list(client.track(b"video"))) == 5
    assert [len(session.prompts) for session in server.sessions] == [1, 0]


async def test_asyncio_takes_the_same() -> None:
    with FakeServer() as server:
        async with masklet.AsyncClient(server.address) as client, client.track(b"video", ONE, TWO) as tracking:
            video = await tracking.video()
            assert (video.height, video.width) == (HEIGHT, WIDTH)
            assert [sorted(frame.objects) async for frame in tracking] == [[1, 2]] * 5


def test_what_is_no_prompt_is_named() -> None:
    with masklet.Client("127.0.0.1:9") as client:
        for wrong, field in [((3,), "prompts"), ((ONE, 3), r"prompts\[1\]"), (([ONE, 3],), r"prompts\[1\]")]:
            with pytest.raises(masklet.InvalidArgument, match=f"{field}: must be a masklet.Prompt, not int"):
                client.track(b"video", *wrong)  # type: ignore[arg-type]
        with pytest.raises(masklet.InvalidArgument, match="not str"):
            client.track(b"video", "10,20")  # type: ignore[arg-type]


@pytest.mark.parametrize("request_of", REQUESTS)
def test_after_the_end_requests_raise(request_of: Callable[[masklet.Tracking], None]) -> None:
    with FakeServer() as server, masklet.Client(server.address) as client:
        ended = client.track(b"video", ONE)
        list(ended)
        closed = client.track(b"video", ONE)
        closed.close()
        for tracking in (ended, closed):
            with pytest.raises(masklet.FailedPrecondition, match="the stream has ended"):
                request_of(tracking)


def test_after_the_end_a_live_call_takes_no_prompt() -> None:
    with FakeServer() as server, masklet.Client(server.address) as client, client.live(ONE) as live:
        live.send(np.zeros((HEIGHT, WIDTH), np.uint8))
        live.end()
        assert len(list(live)) == 1
        with pytest.raises(masklet.FailedPrecondition, match="the stream has ended"):
            live.prompt(TWO)


def test_the_video_is_waited_for_and_no_result_is_lost() -> None:
    with FakeServer() as server, masklet.Client(server.address) as client:
        seen: list[masklet.PromptResult] = []
        tracking = client.track(b"video", ONE, on_prompt=seen.append)
        assert tracking.video == masklet.VideoInfo(HEIGHT, WIDTH, 30.0, 5 / 30, 5, "mov", "h264", 0)
        assert [frame.frame_index for frame in tracking] == list(range(5))
        assert len(seen) == 1
        assert tracking.video.frame_count == 5


def test_the_video_is_waited_for_on_another_thread() -> None:
    with FakeServer() as server, masklet.Client(server.address) as client, client.live(ONE) as live:
        found: list[masklet.VideoInfo] = []
        waiting = threading.Thread(target=lambda: found.append(live.video))
        waiting.start()
        live.send(np.zeros((HEIGHT, WIDTH), np.uint8))
        live.end()
        assert len(list(live)) == 1
        waiting.join(10)
    assert (found[0].height, found[0].width) == (HEIGHT, WIDTH)


def test_what_keeps_the_video_from_being_known_is_raised() -> None:
    failure = status(grpc.StatusCode.DATA_LOSS, "no video")
    with (
        FakeServer(Script(failure=failure, fail_at=0, describes=False)) as server,
        masklet.Client(server.address) as client,
    ):
        tracking = client.track(b"video", ONE)
        with pytest.raises(masklet.DataLoss, match="no video"):
            _ = tracking.video
        with pytest.raises(masklet.DataLoss, match="no video"):
            next(tracking)


def test_a_video_without_frames_is_never_known() -> None:
    with FakeServer(Script(frame_count=0)) as server, masklet.Client(server.address) as client:
        tracking = client.track(b"video", ONE)
        with pytest.raises(masklet.FailedPrecondition, match="has no frame"):
            _ = tracking.video
        assert list(tracking) == []


def test_frames_know_their_size_and_model() -> None:
    with FakeServer() as server, masklet.Client(server.address) as client:
        (first, *_) = client.track(b"video", ONE)
        (bare, *_) = client.track(b"video")
    assert first.size == bare.size == (HEIGHT, WIDTH) == first.masks[1].shape
    assert first.model == bare.model == "nano"


def test_calls_print_what_they_are() -> None:
    with FakeServer() as server, masklet.Client(server.address) as client:
        assert repr(client) == f"Client({server.address!r})"
        tracking = client.track(b"video", ONE)
        next(tracking)
        assert repr(tracking) == "Tracking(session_id='fake-1', model='nano', running)"
        tracking.close()
        assert repr(tracking) == "Tracking(session_id='fake-1', model='nano', ended)"
        with client.live() as live:
            assert repr(live).startswith("Live(session_id=")
        with client.annotate(b"video") as annotation:
            assert annotation.video.height == HEIGHT
            assert repr(annotation) == "Annotation(session_id='fake-1', model='nano', running)"
    assert repr(masklet.AsyncClient("unix:/run/x")) == "AsyncClient('unix:/run/x')"
