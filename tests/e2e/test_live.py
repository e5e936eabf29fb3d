"""Live streams over a real channel: frames and packets, latest and lossless, prompts in between."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
import numpy as np
import pytest

import masklet
from masklet import Live, Prompt, VideoPacket
from tests.support import clips, synthetic
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, center, engine_alone, frames, prompt, truth


@functools.cache
def access_units() -> tuple[bytes, ...]:
    """The clip as a camera's H.264, with a key frame every 6 frames."""
    data = clips.make_clip(
        "mpegts",
        "libx264",
        size=(WIDTH, HEIGHT),
        pictures=list(frames()),
        gop=6,
        codec_options={"tune": "zerolatency", "crf": "5"},
    )
    with av.open(io.BytesIO(data), "r") as container:
        return tuple(bytes(packet) for packet in container.demux(video=0) if packet.size)


def packets() -> Iterator[VideoPacket]:
    for index, data in enumerate(access_units()):
        yield VideoPacket(data, "h264" if index == 0 else "")


@contextlib.contextmanager
def filming(live: Live, video: Iterable[Any], **options: Any) -> Iterator[None]:
    """Send all of it on a thread, and its end."""
    failures: list[BaseException] = []

    def film() -> None:
        try:
            for one in video:
                live.send(one, **options)
            live.end()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=film)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert not thread.is_alive()
    assert failures == []


def follow(client: masklet.Client, video: Iterable[Any], *prompts: Prompt, **options: Any) -> list[masklet.FrameResult]:
    with client.live(prompts, delivery="lossless", **options) as live, filming(live, video):
        return list(live)


def assert_masks(results: list[masklet.FrameResult], expected: list[dict[int, Any]]) -> None:
    assert [frame.frame_index for frame in results] == list(range(len(expected)))
    for frame, masks in zip(results, expected, strict=True):
        for object_id, mask in masks.items():
            np.testing.assert_array_equal(frame.objects[object_id].mask, mask)


@pytest.mark.parametrize("window", [0, 1])
def test_lossless_frames_give_the_engines_masks(client: masklet.Client, window: int) -> None:
    results = follow(client, frames(), prompt("box"), window=window)
    assert_masks(results, engine_alone([prompt("box")], pictures=True))
    for frame in results:
        assert frame.skipped_frame_indices == ()
        assert frame.latency_seconds is not None
        assert frame.server_latency_seconds > 0
        assert 0 < frame.latency_seconds < 60


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_short_stream_is_encoded_as_a_long_one(client: masklet.Client, num_frames: int) -> None:
    """Nothing waits to learn the length: as the reference's 16 frames or more, from the first one on."""
    results = follow(client, frames()[:num_frames], prompt("box"))
    assert_masks(results, engine_alone([prompt("box")], pictures=True)[:num_frames])


@pytest.mark.parametrize("layout", ["bgr24", "nv12", "gray8"])
def test_other_layouts(client: masklet.Client, layout: Any) -> None:
    convert: Callable[[Any], Any] = {
        "bgr24": lambda p: np.ascontiguousarray(p[..., ::-1]),
        "nv12": lambda p: av.VideoFrame.from_ndarray(p, format="rgb24").reformat(format="nv12").to_ndarray(),
        "gray8": lambda p: p[..., 0],
    }[layout]
    with client.live(prompt("mask"), delivery="lossless") as live:
        with filming(live, [convert(p) for p in frames()[:4]], layout=layout):
            results = list(live)
        assert live.video is not None
        assert (live.video.height, live.video.width) == (HEIGHT, WIDTH)
    overlaps = [synthetic.iou(frame.objects[1].mask, truth(0, frame.frame_index)) for frame in results]
    assert len(results) == 4
    assert min(overlaps) > 0.5, overlaps


@pytest.mark.fast
def test_times_come_back_as_they_were_sent(client: masklet.Client) -> None:
    times = [5.0, 5.0, 4.5, 7.25]
    with client.live(prompt("box"), delivery="lossless") as live:
        for index, pts in enumerate(times):
            live.send(frames()[index], pts_seconds=pts, capture_time_nanoseconds=1000 + index)
            frame = next(live)
            assert (frame.pts_seconds, frame.capture_time_nanoseconds) == (pts, 1000 + index)
        live.end()
        assert list(live) == []


def test_a_frame_of_another_size(client: masklet.Client) -> None:
    with client.live(prompt("box"), delivery="lossless") as live:
        live.send(frames()[0])
        assert next(live).objects[1].mask.shape == (HEIGHT, WIDTH)
        live.send(frames()[1][::2, ::2].copy())
        assert next(live).objects[1].mask.shape == (HEIGHT // 2, WIDTH // 2)
        live.send(frames()[2])
        assert next(live).objects[1].mask.shape == (HEIGHT, WIDTH)


# Packets


@pytest.mark.parametrize("cut", [0, 311])
def test_packets_are_followed_whole_or_cut_anywhere(client: masklet.Client, cut: int) -> None:
    whole = b"".join(access_units())
    video = [VideoPacket(whole[i : i + cut], "h264", is_fragment=True) for i in range(0, len(whole), cut or 1)]
    results = follow(client, video if cut else packets(), prompt("mask"))
    assert len(results) == NUM_FRAMES
    overlaps = [synthetic.iou(frame.objects[1].mask, truth(0, frame.frame_index)) for frame in results]
    assert np.mean(overlaps) > 0.5, overlaps


def test_joining_late_and_damage_cost_frames_and_not_the_session(client: masklet.Client) -> None:
    units = list(access_units())[2:]
    units[6] = bytes(200)
    results = follow(client, [VideoPacket(unit, "h264") for unit in units], prompt("mask", 0, 0))
    assert 10 <= len(results) <= 12, "from frame 6 on, but for a damaged one"
    assert [frame.frame_index for frame in results] == list(range(len(results)))


def test_a_codec_that_is_not_allowed(client: masklet.Client) -> None:
    with client.live(prompt("mask")) as live:
        live.send(VideoPacket(b"x", "theora"))
        with pytest.raises(masklet.InvalidArgument, match=r"packet\.codec"):
            list(live)


# The latest frames


def test_latest_skips_what_comes_too_fast_and_names_it(client: masklet.Client) -> None:
    count = 90
    with client.live(prompt("box"), max_latency=0.02) as live:
        with filming(live, (frames()[i % NUM_FRAMES] for i in range(count))):
            results = list(live)
        told = sorted(i for frame in results for i in (*frame.skipped_frame_indices, frame.frame_index))
        assert told == list(range(count)), "every frame is tracked or named, once"
        assert len(results) < count
        assert results[-1].frame_index == count - 1
    assert all(1 in frame.objects for frame in results)


def test_masks_are_those_of_the_video_without_the_skipped_frames(client: masklet.Client) -> None:
    video = (frames()[i % NUM_FRAMES] for i in range(60))
    with client.live(prompt("box"), max_latency=0.02) as live, filming(live, video):
        results = list(live)
    tracked = [frames()[frame.frame_index % NUM_FRAMES] for frame in results]
    assert len(tracked) < 60
    again = follow(client, tracked, prompt("box"))
    for one, other in zip(results, again, strict=True):
        np.testing.assert_array_equal(one.objects[1].mask, other.objects[1].mask)


def test_a_slow_reader_does_not_block_the_sender(client: masklet.Client) -> None:
    with client.live(prompt("box"), window=2) as live:
        begun = time.monotonic()
        for index in range(60):
            live.send(frames()[index % NUM_FRAMES])  # nothing is read meanwhile
        assert time.monotonic() - begun < 15
        live.end()
        results = list(live)
    assert results[-1].frame_index == 59
    assert 2 <= len(results) < 60


# Changing one's mind


@pytest.mark.fast
def test_prompts_and_removals_in_between(client: masklet.Client) -> None:
    answers: list[masklet.PromptResult] = []
    with client.live(delivery="lossless", on_prompt=answers.append) as live:
        seen = []
        for index, picture in enumerate(frames()[:8]):
            if index == 2:
                live.prompt(prompt("mask", 0))
            if index == 4:
                live.prompt(prompt("box", 1), frame_index=5)
            if index == 7:
                live.remove(1)
            live.send(picture)
            seen.append(sorted(next(live).objects))
    assert seen == [[], [], [1], [1], [1], [1, 2], [1, 2], [2]]
    assert [(a.object.object_id, a.frame_index) for a in answers] == [(1, 2), (2, 5)]


def test_faults_that_can_be_mended_do_not_end_the_stream(client: masklet.Client) -> None:
    errors: list[masklet.MaskletError] = []
    with client.live(prompt("box"), delivery="lossless", on_error=errors.append) as live:
        live.send(frames()[0])
        next(live)
        live.prompt(Prompt(2, point_coords=[[9999, 9999]]))
        live.remove(7)
        live.send(frames()[1])
        assert sorted(next(live).objects) == [1]
    assert [type(error) for error in errors] == [masklet.InvalidArgument, masklet.NotFound]


def test_such_a_fault_is_raised_where_nobody_listens(client: masklet.Client) -> None:
    with client.live(prompt("box"), delivery="lossless") as live:
        live.remove(7)
        live.send(frames()[0])
        with pytest.raises(masklet.NotFound, match="object 7"):
            list(live)
        with pytest.raises(masklet.FailedPrecondition, match="ended"):
            live.send(frames()[1])


def test_sending_after_the_end(client: masklet.Client) -> None:
    with client.live(prompt("box"), delivery="lossless") as live:
        live.send(frames()[0])
        live.end()
        live.end()
        with pytest.raises(masklet.FailedPrecondition):
            live.send(frames()[1])
        assert len(list(live)) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"delivery": "newest"}, "delivery"),
        ({"max_latency": -1.0}, "max_latency"),
        ({"max_latency": 1.0, "delivery": "lossless"}, "max_latency"),
    ],
)
def test_wrong_options(client: masklet.Client, options: dict[str, Any], match: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match=match):
        client.live(**options)


def test_wrong_pictures(client: masklet.Client) -> None:
    cases: list[tuple[Any, tuple[int, ...]]] = [
        ("nv12", (7, 4)),
        ("bgr24", (6, 4)),
        ("gray8", (6, 4, 3)),
        ("yuv", (6, 4)),
    ]
    with client.live() as live:
        for layout, shape in cases:
            with pytest.raises(masklet.InvalidArgument):
                live.send(np.zeros(shape, np.uint8), layout=layout)


# asyncio


async def test_the_async_client(nano_server: str) -> None:
    answers: list[masklet.PromptResult] = []
    async with (
        masklet.AsyncClient(nano_server) as client,
        client.live(prompt("box"), delivery="lossless", on_prompt=answers.append) as live,
    ):

        async def film() -> None:
            for picture in frames():
                await live.send(picture)
            live.end()

        sending = asyncio.create_task(film())
        results = [frame async for frame in live]
        await sending
    assert_masks(results, engine_alone([prompt("box")], pictures=True))
    assert [answer.frame_index for answer in answers] == [0]


async def test_leaving_an_async_stream_wakes_who_sends(nano_server: str) -> None:
    async with masklet.AsyncClient(nano_server) as client:

        async def film(live: masklet.AsyncLive) -> None:
            while True:
                await live.send(frames()[0])

        async with client.live(prompt("box"), delivery="lossless", window=1) as live:
            sending = asyncio.create_task(film(live))
            await anext(live)
        with pytest.raises((masklet.FailedPrecondition, RuntimeError)):
            await asyncio.wait_for(sending, 30)


def test_a_click_where_the_object_is_now(client: masklet.Client) -> None:
    """As a person does who looks at a live picture."""
    with client.live(delivery="lossless") as live:
        for index in range(6):
            if index == 3:
                live.prompt(Prompt(1, point_coords=[center(0, 3)]))
            live.send(frames()[index])
            frame = next(live)
    assert frame.objects[1].area > 0
