"""Annotation through the public client over a real channel, with nano."""

from __future__ import annotations

import asyncio
import time
from unittest import mock

import numpy as np
import pytest

import masklet
from masklet import Prompt
from masklet_server.metrics import Metrics
from tests.support import synthetic
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, center, engine_alone, frames, h264, lossless, prompt, truth


def test_what_is_propagated_is_what_tracking_gives(client: masklet.Client) -> None:
    prompts = [prompt("box-and-point", 0), prompt("mask", 1, 0)]
    expected = engine_alone(prompts)
    with client.annotate(lossless()) as annotation:
        assert (annotation.video.height, annotation.video.width) == (HEIGHT, WIDTH)
        seen = [annotation.prompt(one) for one in prompts]
        assert [result.object.object_id for result in seen] == [1, 2]
        found = list(annotation.propagate())
        assert annotation.frame_count == NUM_FRAMES
    assert [frame.frame_index for frame in found] == list(range(NUM_FRAMES))
    for frame, masks in zip(found, expected, strict=True):
        for object_id, mask in masks.items():
            assert (frame.objects[object_id].mask == mask).mean() >= 0.9999, f"frame {frame.frame_index}"


@pytest.mark.fast
def test_click_look_correct_and_track_again(client: masklet.Client) -> None:
    with client.annotate(list(frames()), return_logits=True) as annotation:
        first = annotation.prompt(prompt("point", 0, 4))
        assert first.frame_index == 4
        assert first.object.logits is not None
        assert first.object.logits.shape == (96, 96)
        both = [f.frame_index for f in annotation.propagate(max_frames=3, direction="both")]
        assert both == [4, 5, 6, 7, 4, 3, 2, 1]
        better = annotation.prompt(prompt("mask", 0, 6))
        assert synthetic.iou(better.object.mask, truth(0, 6)) > 0.9
        again = list(annotation.propagate(7, max_frames=1))
        assert [(f.frame_index, f.revision) for f in again] == [(7, 1), (8, 0)]
        assert all(f.objects[1].logits is not None for f in again)
        left = annotation.clear_prompts(1, 6)
        assert left.frame_index == 6
        annotation.prompt(prompt("box", 1, 2))
        annotation.remove_object(1)
        assert [set(f.objects) for f in annotation.propagate(2, max_frames=0)] == [{2}]
        annotation.reset()
        with pytest.raises(masklet.FailedPrecondition, match="no object to track"):
            next(annotation.propagate())
        assert annotation.prompt(prompt("box", 2)).object.object_id == 3


@pytest.mark.fast
def test_a_frame_that_is_looked_at_is_encoded_before_it_is_clicked(client: masklet.Client) -> None:
    encoded: list[int] = []
    with client.annotate(lossless()) as annotation:
        expected = annotation.prompt(prompt("point", 0, 5)).object.mask
    with (
        mock.patch.object(Metrics, "on_encode", lambda _self, count, _seconds: encoded.append(count)),
        client.annotate(lossless()) as annotation,
    ):
        assert annotation.frame_count == NUM_FRAMES
        annotation.prepare(NUM_FRAMES)  # there is no such frame
        annotation.prepare(5)
        deadline = time.monotonic() + 20
        while not encoded and time.monotonic() < deadline:
            time.sleep(0.01)
        assert encoded == [1]
        found = annotation.prompt(prompt("point", 0, 5)).object.mask
        assert encoded == [1], "the click finds the frame encoded"
        annotation.prompt(prompt("point", 1, 5))
        assert encoded == [1]
        annotation.prompt(prompt("point", 1, 11))
        assert encoded == [1, 1]
    assert (found == expected).all()


def test_what_is_refused_harms_nothing_else(client: masklet.Client) -> None:
    with client.annotate(h264()) as annotation:
        with pytest.raises(masklet.InvalidArgument) as caught:
            annotation.prompt(Prompt(point_coords=[[WIDTH + 9, 5]]))
        assert caught.value.violations[0].field == "prompt.points[0]"
        with pytest.raises(masklet.InvalidArgument, match="but the video has 18 frames"):
            annotation.prompt(Prompt(frame_index=NUM_FRAMES, point_coords=[[5, 5]]))
        with pytest.raises(masklet.NotFound, match="object 7 is not tracked"):
            annotation.remove_object(7)
        with pytest.raises(masklet.NotFound, match="object 7 is not tracked"):
            annotation.clear_prompts(7, 0)
        annotation.prompt(prompt("point"))
        with pytest.raises(masklet.InvalidArgument, match="start_frame_index"):
            next(annotation.propagate(NUM_FRAMES))
        for object_id in range(2, 9):
            annotation.prompt(Prompt(object_id, point_coords=[center(1)]))
        with pytest.raises(masklet.ResourceExhausted, match="max_objects is 8"):
            annotation.prompt(Prompt(9, point_coords=[center(1)]))
        assert set(next(annotation.propagate()).objects) == set(range(1, 9))


def test_leaving_the_loop_early_costs_little(client: masklet.Client) -> None:
    with client.annotate(lossless()) as annotation:
        annotation.prompt(prompt("point"))
        for frame in annotation.propagate():
            if frame.frame_index == 1:
                break
        begun = time.monotonic()
        annotation.prompt(prompt("point", 1))
        assert time.monotonic() - begun < 5
        revisions = [frame.revision for frame in annotation.propagate(max_frames=NUM_FRAMES)]
        assert len(revisions) == NUM_FRAMES
        assert revisions[0] == 1


@pytest.mark.fast
def test_closing_frees_the_server(client: masklet.Client) -> None:
    annotation = client.annotate(lossless())
    annotation.prompt(prompt("point"))
    frames_of = annotation.propagate()
    next(frames_of)
    begun = time.monotonic()
    annotation.close()
    assert time.monotonic() - begun < 1
    with pytest.raises(masklet.FailedPrecondition, match="is closed"):
        next(frames_of)


def test_a_video_that_is_none(client: masklet.Client) -> None:
    with client.annotate(b"no video at all" * 100) as annotation, pytest.raises(masklet.DataLoss):
        annotation.prompt(prompt("point"))


def test_the_same_awaited(nano_server: str) -> None:
    async def run() -> None:
        async with masklet.AsyncClient(nano_server) as client, client.annotate(lossless(8)) as annotation:
            seen = await annotation.prompt(prompt("point"))
            assert await annotation.frame_count() == 8
            found = [frame async for frame in annotation.propagate()]
            np.testing.assert_array_equal(found[0].objects[1].mask, seen.object.mask)
            assert [frame.frame_index for frame in found] == list(range(8))
            async for frame in annotation.propagate():
                if frame.frame_index == 1:
                    break
            with pytest.raises(masklet.NotFound):
                await annotation.remove_object(2)
            await annotation.remove_object(1)

    asyncio.run(run())


@pytest.mark.fast
def test_one_object_is_tracked_anew_and_the_others_stay(client: masklet.Client) -> None:
    with client.annotate(lossless(6)) as annotation:
        for blob in (0, 1):
            annotation.prompt(prompt("box", blob))
        first = {frame.frame_index: frame for frame in annotation.propagate()}
        annotation.prompt(prompt("mask", 1, 3))
        again = list(annotation.propagate(4, object_ids=[2]))
        assert [(frame.frame_index, set(frame.objects)) for frame in again] == [(4, {2}), (5, {2})]
        both = next(annotation.propagate(5))
        assert (both.objects[1].mask == first[5].objects[1].mask).all()
        with pytest.raises(masklet.NotFound, match="object 7 is not tracked"):
            next(annotation.propagate(object_ids=[7]))
        with pytest.raises(masklet.InvalidArgument, match="object_ids: is empty"):
            annotation.propagate(object_ids=[])
        annotation.prompt(prompt("point", 2))
        annotation.clear_prompts(3, 0)  # an object without a prompt is in the way of all objects, not of one
        assert len(list(annotation.propagate(4, object_ids=[1]))) == 2
        with pytest.raises(masklet.FailedPrecondition, match="object 3 has no prompt"):
            next(annotation.propagate())
