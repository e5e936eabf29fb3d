"""The whole way: client, gRPC, decoder process, session, engine with nano, and back."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import masklet
from masklet import Prompt
from tests.support import synthetic
from tests.support.e2e import (
    HEIGHT,
    KINDS,
    NUM_FRAMES,
    WIDTH,
    center,
    engine_alone,
    frames,
    h264,
    lossless,
    prompt,
    truth,
)


def assert_same_masks(results: list[masklet.FrameResult], expected: list[dict[int, Any]]) -> None:
    assert [frame.frame_index for frame in results] == list(range(len(expected)))
    for frame, masks in zip(results, expected, strict=True):
        assert frame.objects.keys() == masks.keys()
        for object_id, mask in masks.items():
            np.testing.assert_array_equal(frame.objects[object_id].mask, mask)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.fast) if kind == "point" else kind for kind in KINDS]
)
def test_masks_are_the_engines_own(client: masklet.Client, kind: str) -> None:
    results = list(client.track(lossless(), prompt(kind)))
    assert_same_masks(results, engine_alone([prompt(kind)]))
    assert any(frame.objects[1].area for frame in results)


def test_an_object_is_followed(client: masklet.Client) -> None:
    results = list(client.track(h264(), prompt("mask")))
    overlaps = [synthetic.iou(frame.objects[1].mask, truth(0, frame.frame_index)) for frame in results]
    assert np.mean(overlaps) > 0.5, overlaps


def test_results_describe_the_masks(client: masklet.Client) -> None:
    with client.track(h264(), prompt("mask")) as tracking:
        results = list(tracking)
        assert tracking.video is not None
        assert (tracking.video.height, tracking.video.width, tracking.video.codec) == (HEIGHT, WIDTH, "h264")
        assert tracking.video.frame_count == NUM_FRAMES
        assert tracking.session_id
        assert tracking.model == "nano"
    for frame in results:
        found = frame.objects[1]
        assert found.mask.shape == (HEIGHT, WIDTH)
        assert found.area == found.mask.sum()
        assert 0 <= found.predicted_iou <= 1
        assert found.visible == (found.object_score > 0 and found.area > 0)
        ys, xs = np.nonzero(found.mask)
        assert found.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert [frame.pts_seconds for frame in results] == pytest.approx([i / 25 for i in range(NUM_FRAMES)])
    assert [frame.sequence for frame in results] == sorted(frame.sequence for frame in results)


def test_objects_join_and_frames_before_the_first_prompt_are_empty(client: masklet.Client) -> None:
    prompts = [prompt("mask", 0, 2), prompt("box", 1, 2), prompt("point", 2, 7)]
    results = list(client.track(lossless(), prompts))
    assert [len(frame.objects) for frame in results] == [0, 0, 2, 2, 2, 2, 2, *[3] * 11]
    assert_same_masks(results, engine_alone(prompts))


def test_an_object_is_removed_and_its_id_used_again(client: masklet.Client) -> None:
    seen = []
    with client.track(slow_pictures(), [prompt("mask"), prompt("box", 1)]) as tracking:
        for frame in tracking:
            seen.append(set(frame.objects))
            if frame.frame_index == 3:
                tracking.remove_object(1)
            if frame.frame_index == 10:
                tracking.add_prompt(prompt("mask", 0, 14))
    assert seen[0] == {1, 2}
    assert seen[12] == {2}
    assert seen[14] == {1, 2}


def slow_pictures() -> Any:
    """Pictures as a camera sends them, so that there is time to change one's mind."""
    for picture in frames():
        time.sleep(0.15)
        yield picture


def test_clicks_on_one_frame_are_refined_in_order(client: masklet.Client) -> None:
    x, y = center(0)
    clicks = [
        Prompt(point_coords=[[x, y]]),
        Prompt(point_coords=[[x + 6, y]], keep_old_points=True),
        Prompt(point_coords=[[3, 3]], point_labels=[0], keep_old_points=True),
    ]
    outcomes: list[masklet.PromptResult] = []
    results = list(client.track(lossless(), clicks, on_prompt=outcomes.append))
    assert len(outcomes) == 3
    assert {(o.frame_index, o.object.object_id) for o in outcomes} == {(0, 1)}
    assert_same_masks(results, engine_alone(clicks))
    np.testing.assert_array_equal(outcomes[-1].object.mask, results[0].objects[1].mask)


@pytest.mark.parametrize("num_frames", [1, 2, 15])
def test_short_clips(client: masklet.Client, num_frames: int) -> None:
    results = list(client.track(lossless(num_frames), prompt("point")))
    assert_same_masks(results, engine_alone([prompt("point")], num_frames))


def folder(tmp_path: Path) -> Path:
    for index, picture in enumerate(frames()):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")  # 10.png comes after 9.png
    return tmp_path


def file(tmp_path: Path) -> Path:
    (tmp_path / "clip.mkv").write_bytes(lossless())
    return tmp_path / "clip.mkv"


@pytest.mark.parametrize(
    ("video", "pictures"),
    [
        (file, False),
        (lambda path: str(file(path)), False),
        (lambda path: io.BytesIO(lossless()), False),
        (folder, True),
        (lambda path: iter(frames()), True),
    ],
    ids=["path", "string", "file-object", "folder", "arrays"],
)
def test_every_kind_of_video_gives_the_same_masks(
    client: masklet.Client, tmp_path: Path, video: Callable[[Path], Any], pictures: bool
) -> None:
    expected = engine_alone([prompt("point")], pictures=pictures)
    assert_same_masks(list(client.track(video(tmp_path), prompt("point"))), expected)


async def test_the_async_client_gives_the_same_masks(nano_server: str) -> None:
    async with masklet.AsyncClient(nano_server) as client:
        results = [frame async for frame in client.track(lossless(), prompt("box"))]
    assert_same_masks(results, engine_alone([prompt("box")]))


def test_a_deterministic_session(client: masklet.Client) -> None:
    assert_same_masks(list(client.track(lossless(), prompt("box"), deterministic=True)), engine_alone([prompt("box")]))


async def test_four_streams_at_once_keep_their_own_masks(nano_server: str) -> None:
    async with masklet.AsyncClient(nano_server) as client:

        async def follow(kind: str) -> list[masklet.FrameResult]:
            return [frame async for frame in client.track(lossless(10), prompt(kind))]

        runs = await asyncio.gather(*(follow(kind) for kind in KINDS[:4]))
    for kind, results in zip(KINDS, runs, strict=False):
        expected = engine_alone([prompt(kind)], 10)
        overlaps = [synthetic.iou(f.objects[1].mask, e[1]) for f, e in zip(results, expected, strict=True)]
        assert np.mean(overlaps) >= 0.999


def test_breaking_out_frees_the_server(client: masklet.Client) -> None:
    for frame in client.track(slow_pictures(), prompt("point")):
        if frame.frame_index == 2:
            break
    assert len(list(client.track(lossless(), prompt("point")))) == NUM_FRAMES
