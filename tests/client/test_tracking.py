"""Both clients against a server on real loopback gRPC: results, flow control, errors, and ends of every kind."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from PIL import Image

import masklet
from masklet.v1 import common_pb2, tracking_pb2
from tests.support.scripted.fake_script import HEIGHT, WIDTH, Script, square, status
from tests.support.scripted.fake_server import FakeServer

CLICK = masklet.Prompt(object_id=3, point_coords=[[20, 20]])
Frames = list[masklet.FrameResult]


def run_sync(address: str, video: Any, prompts: Any = CLICK, **options: Any) -> Frames:
    with masklet.Client(address, connect_timeout=0) as client:
        return list(client.track(video, prompts, **options))


def run_async(address: str, video: Any, prompts: Any = CLICK, **options: Any) -> Frames:
    async def run() -> Frames:
        async with masklet.AsyncClient(address, connect_timeout=0) as client:
            return [frame async for frame in client.track(video, prompts, **options)]

    return asyncio.run(run())


@pytest.fixture(params=[run_sync, run_async], ids=["Client", "AsyncClient"])
def run(request: pytest.FixtureRequest) -> Callable[..., Frames]:
    function: Callable[..., Frames] = request.param
    return function


def gray_frames(count: int) -> list[npt.NDArray[np.uint8]]:
    return [np.full((HEIGHT, WIDTH), i, np.uint8) for i in range(count)]


def test_results_carry_everything_the_server_said(run: Callable[..., Frames]) -> None:
    with FakeServer(Script(frame_count=3)) as server:
        frames = run(server.address, b"video")
    assert [f.frame_index for f in frames] == [0, 1, 2]
    assert [f.sequence for f in frames] == [2, 3, 4]
    assert frames[2].pts_seconds == pytest.approx(2 / 30)
    assert frames[2].revision == 0
    result = frames[2].objects[3]
    assert (result.object_id, result.area, result.visible) == (3, 400, True)
    assert result.box == (7.0, 10.0, 27.0, 30.0)
    assert result.predicted_iou == pytest.approx(0.75)
    assert result.object_score == pytest.approx(5.0)
    assert result.mask.dtype == np.bool_
    np.testing.assert_array_equal(result.mask, square(2))
    np.testing.assert_array_equal(frames[2].masks[3], square(2))


def test_results_tell_what_happened_to_objects(run: Callable[..., Frames]) -> None:
    happened: dict[int, Any] = {
        1: common_pb2.OBJECT_EVENT_LOST,
        2: common_pb2.OBJECT_EVENT_REACQUIRED,
        3: common_pb2.OBJECT_EVENT_OUT_OF_VIEW,
        4: 77,  # what a newer server may tell
    }
    with FakeServer(Script(frame_count=6, events=happened)) as server:
        frames = run(server.address, b"video")
    events = [frame.objects[3].event for frame in frames]
    assert events == [None, "lost", "reacquired", "out_of_view", None, None]
    assert "event='lost'" in repr(frames[1].objects[3])
    assert "event" not in repr(frames[0].objects[3])


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (None, tracking_pb2.MEMORY_POLICY_SAM2),
        ("sam2", tracking_pb2.MEMORY_POLICY_SAM2),
        ("distractor_aware", tracking_pb2.MEMORY_POLICY_DISTRACTOR_AWARE),
        ("motion_aware", tracking_pb2.MEMORY_POLICY_MOTION_AWARE),
    ],
)
def test_the_memory_policy_is_asked_for(run: Callable[..., Frames], name: str | None, number: int) -> None:
    with FakeServer() as server:
        run(server.address, b"video", **({} if name is None else {"memory_policy": name}))
        assert server.sessions[0].config.memory_policy == number


def test_an_unknown_memory_policy_is_refused(run: Callable[..., Frames]) -> None:
    with pytest.raises(
        masklet.InvalidArgument, match="memory_policy: is 'best', must be one of sam2, distractor_aware, motion_aware"
    ):
        run("127.0.0.1:1", b"video", memory_policy="best")


def test_masks_are_decoded_on_first_use_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[masklet.Rle] = []

    def counted(rle: masklet.Rle) -> npt.NDArray[np.bool_]:
        decoded.append(rle)
        return masklet.decode_rle(rle)

    monkeypatch.setattr("masklet._protocol.results.decode_rle", counted)
    with FakeServer(Script(frame_count=2)) as server:
        frames = run_sync(server.address, b"video")
    assert not decoded
    assert frames[1].objects[3].mask is frames[1].objects[3].mask
    assert len(decoded) == 1


def test_empty_mask_has_no_box(run: Callable[..., Frames]) -> None:
    script = Script(frame_count=1, mask=lambda index, height, width: np.zeros((height, width), np.bool_))
    with FakeServer(script) as server:
        result = run(server.address, b"video")[0].objects[3]
    assert result.box is None
    assert not result.visible
    assert not result.mask.any()


def test_config_and_prompts_go_before_the_video(run: Callable[..., Frames]) -> None:
    mask = square(0)
    prompts = [
        masklet.Prompt(object_id=1, point_coords=[[1, 2], [3, 4]], point_labels=[1, 0], box=[0, 0, 9, 8]),
        masklet.Prompt(object_id=2, frame_index=4, mask=mask),
    ]
    data = bytes(range(256)) * 6000
    with FakeServer() as server:
        run(server.address, data, prompts, model="nano", deterministic=True, window=7)
        session = server.sessions[0]
    assert session.kinds()[:4] == ["config", "prompt", "prompt", "video_chunk"]
    assert session.video == data
    config = session.config
    assert (config.model, config.deterministic, config.window, config.frame_count) == ("nano", True, 7, 0)
    first, second = session.prompts
    assert [(p.x, p.y, p.label) for p in first.points] == [(1, 2, 1), (3, 4, 2)]
    assert (first.box.x1, first.box.y1) == (9, 8)
    assert (second.object_id, second.frame_index, second.mask.height, second.mask.width) == (2, 4, HEIGHT, WIDTH)
    rle = masklet.Rle(size=[second.mask.height, second.mask.width], counts=second.mask.data.decode())
    np.testing.assert_array_equal(masklet.decode_rle(rle), mask)


def test_chunks_stay_below_grpcs_default_limit(run: Callable[..., Frames]) -> None:
    with FakeServer() as server:
        run(server.address, bytes(1_300_000))
        sizes = [len(m.video_chunk) for m in server.sessions[0].messages if m.WhichOneof("request") == "video_chunk"]
    assert sizes == [524288, 524288, 251424]


def test_file_path_and_file_object_and_folder(run: Callable[..., Frames], tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"bytes of a video")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in (10, 9, 1):
        Image.new("L", (WIDTH, HEIGHT), i).save(folder / f"frame{i}.png")
    with FakeServer() as server:
        run(server.address, file)
        run(server.address, str(file))
        run(server.address, io.BytesIO(file.read_bytes()))
        frames = run(server.address, folder)
        videos = [session.video for session in server.sessions[:3]]
        session = server.sessions[3]
    assert videos == [file.read_bytes()] * 3
    assert len(frames) == 3
    assert session.config.frame_count == 3
    assert [p.data for p in session.frames] == [(folder / f"frame{i}.png").read_bytes() for i in (1, 9, 10)]


def test_arrays_go_raw(run: Callable[..., Frames]) -> None:
    colour = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint32).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
    with FakeServer() as server:
        frames = run(server.address, (picture for picture in [colour, colour[:, :, 0]]))
        session = server.sessions[0]
    assert len(frames) == 2
    rgb, gray = session.frames
    assert (rgb.format, rgb.height, rgb.width, rgb.data) == (2, HEIGHT, WIDTH, colour.tobytes())
    assert (gray.format, gray.data) == (4, colour[:, :, 0].tobytes())


def test_async_iterable_is_drawn_from_on_the_loop() -> None:
    async def camera(loop: asyncio.AbstractEventLoop) -> AsyncIterator[npt.NDArray[np.uint8]]:
        for picture in gray_frames(20):
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0)
            yield picture

    async def main(address: str) -> Frames:
        async with masklet.AsyncClient(address) as client:
            return [frame async for frame in client.track(camera(asyncio.get_running_loop()), CLICK)]

    with FakeServer() as server:
        assert len(asyncio.run(main(server.address))) == 20


def test_client_refuses_async_iterable() -> None:
    async def camera() -> AsyncIterator[None]:
        yield None

    with masklet.Client("127.0.0.1:1") as client, pytest.raises(masklet.InvalidArgument, match="AsyncClient"):
        client.track(camera(), CLICK)  # type: ignore[arg-type]


def test_server_never_gets_more_unacknowledged_results_than_its_window() -> None:
    with FakeServer(Script(frame_count=30, window=3)) as server:
        with masklet.Client(server.address) as client:
            tracking = client.track(b"video", CLICK)
            first = next(tracking)
            session = server.sessions[0]
            assert not session.ended.wait(0.3)  # long enough for thirty frames, if nothing held the server back
            assert session.results_sent <= 1 + 3
            assert [first.frame_index, *(f.frame_index for f in tracking)] == list(range(30))
        assert session.max_unacked <= 3
        assert session.acked >= 31 - 3  # the last ones may meet the end of the call


@pytest.mark.parametrize("window", [1, 4, 64])
def test_pictures_are_sent_only_as_far_ahead_as_the_window(run: Callable[..., Frames], window: int) -> None:
    with FakeServer(Script(window=window)) as server:
        frames = run(server.address, gray_frames(40))
        assert server.sessions[0].config.frame_count == 40
        assert server.sessions[0].max_frames_ahead <= window + 1
    assert len(frames) == 40


def test_unknown_length_lets_the_server_look_sixteen_pictures_ahead() -> None:
    drawn: list[int] = []
    started = threading.Event()

    def camera() -> Iterator[npt.NDArray[np.uint8]]:
        for i, picture in enumerate(gray_frames(100)):
            drawn.append(i)
            if i == 15:
                started.set()
            yield picture

    with FakeServer(Script(window=2, stall_at=0)) as server, masklet.Client(server.address) as client:
        tracking = client.track(camera(), CLICK)
        assert started.wait(10)
        assert not server.sessions[0].ended.wait(0.2)
        assert len(drawn) == 16
        tracking.close()


def test_session_model_and_video_are_known_with_the_first_frame() -> None:
    with FakeServer() as server, masklet.Client(server.address) as client, client.track(b"v", CLICK) as tracking:
        next(tracking)
        assert tracking.session_id == "fake-1"
        assert tracking.model == "nano"
        assert tracking.video == masklet.VideoInfo(HEIGHT, WIDTH, 30.0, 5 / 30, 5, "mov", "h264", 0)


def test_prompt_results_come_before_their_frame(run: Callable[..., Frames]) -> None:
    seen: list[masklet.PromptResult] = []
    with FakeServer() as server:
        run(server.address, b"video", [CLICK, masklet.Prompt(object_id=9, box=[1, 2, 3, 4])], on_prompt=seen.append)
    assert [(p.frame_index, p.object.object_id, p.sequence) for p in seen] == [(0, 3, 1), (0, 9, 2)]


def test_prompts_and_removals_can_be_added_while_it_runs() -> None:
    with FakeServer(Script(frame_count=8, window=1)) as server, masklet.Client(server.address) as client:
        tracking = client.track(b"video", [])
        assert next(tracking).objects == {}
        tracking.prompt(masklet.Prompt(object_id=5, frame_index=6, point_coords=[[1, 1]]))
        tracking.remove_object(4)
        assert list(list(tracking)[-1].objects) == [5]
        kinds = server.sessions[0].kinds()
    assert "remove_object" in kinds


def test_nothing_is_left_open_after_the_end(run: Callable[..., Frames]) -> None:
    with FakeServer() as server:
        run(server.address, b"video")
        session = server.sessions[0]
        assert session.ended.wait(10)
        assert session.half_closed.wait(10)


BAD_POINT = status(
    grpc.StatusCode.INVALID_ARGUMENT,
    "prompt.points[0]: (900, 20) lies outside the picture",
    error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field="prompt.points[0]", description="(900, 20) lies outside")
        ]
    ),
)
BUSY = status(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "4 sessions are running, which is the limit",
    error_details_pb2.QuotaFailure(),
    error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000)),
)


def test_inline_error_is_raised_with_its_violations_and_ends_the_call(run: Callable[..., Frames]) -> None:
    with FakeServer(Script(failure=BAD_POINT, inline_at=1)) as server:
        with pytest.raises(masklet.InvalidArgument, match="lies outside the picture") as caught:
            run(server.address, b"video")
        assert server.sessions[0].ended.wait(10)
    assert caught.value.violations == (masklet.FieldViolation("prompt.points[0]", "(900, 20) lies outside"),)


def test_fatal_status_is_raised_with_its_details(run: Callable[..., Frames]) -> None:
    with FakeServer(Script(failure=BUSY)) as server, pytest.raises(masklet.ResourceExhausted) as caught:
        run(server.address, b"video")
    assert str(caught.value) == "4 sessions are running, which is the limit"
    assert caught.value.retry_after_seconds == 2.5


@pytest.mark.parametrize(
    "error",
    [
        masklet.InvalidArgument,
        masklet.NotFound,
        masklet.FailedPrecondition,
        masklet.Unauthenticated,
        masklet.DataLoss,
        masklet.DeadlineExceeded,
        masklet.Unavailable,
        masklet.Unimplemented,
        masklet.Internal,
    ],
)
def test_every_status_in_mid_stream_has_its_exception(error: type[masklet.MaskletError]) -> None:
    code = next(c for c in grpc.StatusCode if c.value[0] == error.code)
    script = Script(failure=status(code, "what happened"), fail_at=2)
    with FakeServer(script) as server, masklet.Client(server.address) as client:
        tracking = client.track(b"video", CLICK)
        got = [next(tracking), next(tracking)]
        with pytest.raises(error, match=r"^what happened$"):
            next(tracking)
        assert list(tracking) == []
    assert [f.frame_index for f in got] == [0, 1]


def test_status_without_details_becomes_the_same_exception(run: Callable[..., Frames]) -> None:
    with (
        FakeServer(Script(plain_failure=(grpc.StatusCode.NOT_FOUND, "no model x"))) as server,
        pytest.raises(masklet.NotFound, match=r"^no model x$"),
    ):
        run(server.address, b"video")


def test_code_without_a_class_is_a_plain_masklet_error(run: Callable[..., Frames]) -> None:
    with (
        FakeServer(Script(plain_failure=(grpc.StatusCode.PERMISSION_DENIED, "not you"))) as server,
        pytest.raises(masklet.MaskletError, match="not you") as caught,
    ):
        run(server.address, b"video")
    assert type(caught.value) is masklet.MaskletError


def test_failure_during_a_long_upload_is_the_servers_own(run: Callable[..., Frames]) -> None:
    def camera() -> Iterator[npt.NDArray[np.uint8]]:
        while True:
            yield np.zeros((720, 1280, 3), np.uint8)

    with (
        FakeServer(Script(failure=status(grpc.StatusCode.DATA_LOSS, "unreadable"), fail_at=3)) as server,
        pytest.raises(masklet.DataLoss, match="unreadable"),
    ):
        run(server.address, camera())


def test_stream_that_ends_without_done_is_not_taken_for_whole(run: Callable[..., Frames]) -> None:
    with (
        FakeServer(Script(frame_count=2, silent_end=True)) as server,
        pytest.raises(masklet.Unavailable, match="after 2 frames"),
    ):
        run(server.address, b"video")


def test_unreachable_server_is_named_with_the_fix(run: Callable[..., Frames]) -> None:
    with FakeServer() as server:
        address = server.address
    with pytest.raises(masklet.Unavailable, match=rf"{address} \(.*refused.*masklet serve"):
        run(address, b"video")


def test_server_that_dies_is_a_lost_connection() -> None:
    with FakeServer(Script(stall_at=1)) as server, masklet.Client(server.address) as client:
        tracking = client.track(b"video", CLICK)
        next(tracking)
        server.stop()
        with pytest.raises((masklet.Unavailable, masklet.Cancelled)):
            next(tracking)


def test_timeout_of_the_whole_call(run: Callable[..., Frames]) -> None:
    with FakeServer(Script(stall_at=1)) as server:
        with pytest.raises(masklet.DeadlineExceeded, match=r"0\.5 s; raise `timeout`"):
            run(server.address, b"video", timeout=0.5)
        assert server.sessions[0].ended.wait(10)


def test_error_of_the_videos_source_is_raised_and_frees_the_server(run: Callable[..., Frames]) -> None:
    def broken() -> Iterator[npt.NDArray[np.uint8]]:
        yield from gray_frames(2)
        assert server.has_begun.wait(10)  # a call that is cancelled earlier is never seen by the server
        raise ZeroDivisionError("the camera caught fire")

    with FakeServer() as server:
        with pytest.raises(ZeroDivisionError, match="caught fire"):
            run(server.address, broken())
        assert server.sessions[0].ended.wait(10)


def test_wrong_picture_in_the_video_is_named(run: Callable[..., Frames]) -> None:
    pictures = [*gray_frames(2), np.zeros((4, 4), np.complex64)]
    with FakeServer() as server, pytest.raises(masklet.InvalidArgument, match=r"video\[2\].*complex64.*uint8"):
        run(server.address, pictures)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ("https://example.org/clip.mp4", "is a URL"),
        ("rtsp://camera/1", "is a URL"),
        (7, "must be a path"),
        (np.zeros((4, 4, 3), np.uint8), "single picture"),
    ],
)
def test_what_is_no_video_is_refused_at_once(run: Callable[..., Frames], video: Any, message: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match=message):
        run("127.0.0.1:1", video)


def test_missing_file_is_refused_at_once(run: Callable[..., Frames], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run("127.0.0.1:1", tmp_path / "none.mp4")


def test_folder_without_pictures_is_refused(run: Callable[..., Frames], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(masklet.InvalidArgument, match="holds no pictures"):
        run("127.0.0.1:1", tmp_path)


def test_file_open_as_text_is_refused(run: Callable[..., Frames]) -> None:
    with FakeServer() as server, pytest.raises(masklet.InvalidArgument, match="mode 'rb'"):
        run(server.address, io.StringIO("text"))


@pytest.mark.parametrize("prompts", ["click", [CLICK, "click"], 5])
def test_what_is_no_prompt_is_refused(run: Callable[..., Frames], prompts: Any) -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"prompts.*masklet\.Prompt"):
        run("127.0.0.1:1", b"video", prompts)


def test_negative_window_is_refused(run: Callable[..., Frames]) -> None:
    with pytest.raises(masklet.InvalidArgument, match="window"):
        run("127.0.0.1:1", b"video", window=-1)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_closed_client_refuses_and_leaves_nothing_behind() -> None:
    client = masklet.Client("127.0.0.1:1")
    client.close()
    with pytest.raises(masklet.FailedPrecondition, match="closed"):
        client.track(b"video", CLICK)
    gc.collect()


def test_leaving_the_loop_frees_the_server() -> None:
    with FakeServer(Script(stall_at=1)) as server, masklet.Client(server.address) as client:
        for _ in client.track(b"video", CLICK):
            break
        gc.collect()
        assert server.sessions[0].ended.wait(10)


def test_leaving_the_with_block_frees_the_server_and_ends_iteration() -> None:
    with FakeServer(Script(stall_at=1)) as server, masklet.Client(server.address) as client:
        with client.track(b"video", CLICK) as tracking:
            next(tracking)
        assert server.sessions[0].ended.wait(10)
        assert list(tracking) == []
        tracking.close()


def test_exception_in_the_loop_frees_the_server() -> None:
    with FakeServer(Script(stall_at=1)) as server, masklet.Client(server.address) as client:

        def consume() -> None:
            for _ in client.track(b"video", CLICK):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            consume()
        gc.collect()
        assert server.sessions[0].ended.wait(10)


def test_cancel_from_another_thread_wakes_the_loop() -> None:
    with FakeServer(Script(stall_at=1)) as server, masklet.Client(server.address) as client:
        tracking = client.track(b"video", CLICK)
        next(tracking)
        threading.Timer(0.1, tracking.cancel).start()
        with pytest.raises(masklet.Cancelled, match="tracking was cancelled"):
            next(tracking)
        assert server.sessions[0].ended.wait(10)


def test_closing_the_client_ends_its_calls() -> None:
    with FakeServer(Script(stall_at=1)) as server:
        client = masklet.Client(server.address)
        tracking = client.track(b"video", CLICK)
        next(tracking)
        client.close()
        with pytest.raises(masklet.Cancelled):
            next(tracking)
        assert server.sessions[0].ended.wait(10)


async def ended(server: FakeServer) -> bool:
    return await asyncio.to_thread(server.sessions[-1].ended.wait, 10)


async def test_cancelled_task_frees_the_server_and_stays_cancelled() -> None:
    with FakeServer(Script(stall_at=1)) as server:
        async with masklet.AsyncClient(server.address) as client:
            reached = asyncio.Event()

            async def consume() -> None:
                async for _ in client.track(b"video", CLICK):
                    reached.set()

            task = asyncio.create_task(consume())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await ended(server)


async def test_leaving_an_async_loop_frees_the_server() -> None:
    with FakeServer(Script(stall_at=1)) as server:
        async with masklet.AsyncClient(server.address) as client:
            async for _ in client.track(b"video", CLICK):
                break
            gc.collect()
            assert await ended(server)


async def test_leaving_an_async_with_block_ends_iteration() -> None:
    with FakeServer(Script(stall_at=1)) as server:
        async with masklet.AsyncClient(server.address) as client:
            async with client.track(b"video", CLICK) as tracking:
                await anext(tracking)
                assert tracking.session_id == "fake-1"
                assert tracking.model == "nano"
                assert (await tracking.video()).height == HEIGHT
            assert await ended(server)
            assert [frame async for frame in tracking] == []
            await tracking.close()


async def test_async_cancel_wakes_the_loop() -> None:
    with FakeServer(Script(stall_at=1)) as server:
        async with masklet.AsyncClient(server.address) as client:
            tracking = client.track(b"video", CLICK)
            await anext(tracking)
            asyncio.get_running_loop().call_later(0.1, tracking.cancel)
            with pytest.raises(masklet.Cancelled):
                await anext(tracking)
            assert await ended(server)


async def test_stalled_async_source_does_not_hold_up_the_end() -> None:
    waiting = asyncio.Event()

    async def camera() -> AsyncIterator[npt.NDArray[np.uint8]]:
        yield gray_frames(1)[0]
        waiting.set()
        await asyncio.Event().wait()

    with FakeServer() as server:
        async with masklet.AsyncClient(server.address) as client:
            async with client.track(camera(), CLICK) as tracking:
                await anext(tracking)
                await waiting.wait()
            assert await ended(server)


async def test_event_loop_runs_on_while_frames_are_awaited() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    with FakeServer(Script(frame_count=5, seconds_per_frame=0.05)) as server:
        async with masklet.AsyncClient(server.address) as client:
            heart = asyncio.create_task(beat())
            assert len([frame async for frame in client.track(b"video", CLICK)]) == 5
            heart.cancel()
    assert beats >= 5


async def test_async_prompts_can_be_added_while_it_runs() -> None:
    with FakeServer(Script(frame_count=8, window=1)) as server:
        async with masklet.AsyncClient(server.address) as client:
            tracking = client.track(b"video", [])
            assert (await anext(tracking)).objects == {}
            tracking.prompt(masklet.Prompt(object_id=5, frame_index=6, point_coords=[[1, 1]]))
            tracking.remove_object(4)
            assert list([frame async for frame in tracking][-1].objects) == [5]


def test_several_streams_share_a_client() -> None:
    results: dict[int, int] = {}
    with FakeServer(Script(frame_count=20)) as server, masklet.Client(server.address) as client:

        def consume(number: int) -> None:
            results[number] = len(list(client.track(b"video", CLICK)))

        threads = [threading.Thread(target=consume, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert results == dict.fromkeys(range(4), 20)
