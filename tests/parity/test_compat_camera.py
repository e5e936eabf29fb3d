"""sam2's video predictor over frames that are known ahead, and masklet's camera predictor that gets them one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import masklet
from masklet.compat import SAM2CameraPredictor
from tests.parity.harness import HEIGHT, WIDTH, center, networks
from tests.support import synthetic
from tests.support.compat import serving

# Upstream's hole filling needs its CUDA extension, and warns where that was not built; masklet skips it there as well.
pytestmark = pytest.mark.filterwarnings("ignore:cannot import name '_C' from 'sam2':UserWarning")

NUM_FRAMES = 17
FRAMES = synthetic.clip(NUM_FRAMES, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(networks("nano")[0]) as running:
        yield running


@pytest.fixture
def predictor(address: str) -> Iterator[SAM2CameraPredictor]:
    with masklet.Client(address) as client:
        found = SAM2CameraPredictor(client)
        yield found
        found.reset_state()


def reference(folder: Path, frames: list[Any]) -> tuple[Any, Any]:
    for index, picture in enumerate(frames):
        Image.fromarray(picture).save(folder / f"{index:05d}.jpg", "PNG")
    theirs = networks("nano")[1]
    return theirs, theirs.init_state(str(folder))


def check(where: str, found: torch.Tensor, expected: torch.Tensor) -> float:
    """The bar of the parity suite; returns how much is foreground."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), where
    difference = (found - expected).abs().max().item()
    assert difference <= 1e-3, f"{where}: logits differ by {difference:.2g}"
    assert ((found > 0) == (expected > 0)).float().mean() >= 0.9999, where
    return (expected > 0).float().mean().item()


def test_masks_are_those_of_the_video_predictor(predictor: SAM2CameraPredictor, tmp_path: Path) -> None:
    theirs, state = reference(tmp_path, list(FRAMES))
    (x, y), (x1, y1) = center(0), center(1)
    box = [[x1 - 24, y1 - 24], [x1 + 24, y1 + 24]]

    predictor.load_first_frame(FRAMES[0])
    _, ids, masks = predictor.add_new_points(0, "a", [[x, y]], [1])
    check("a click", masks, theirs.add_new_points_or_box(state, 0, "a", [[x, y]], [1])[2])
    _, ids, masks = predictor.add_new_prompt(0, "a", [[4, 4]], [0], clear_old_points=False)
    expected = theirs.add_new_points_or_box(state, 0, "a", [[4, 4]], [0], clear_old_points=False)
    check("a second click", masks, expected[2])
    frame_idx, ids, masks = predictor.add_new_prompt(frame_idx=0, obj_id=7, bbox=box)
    assert (frame_idx, ids) == (0, ["a", 7])
    check("a box", masks, theirs.add_new_points_or_box(state, 0, 7, box=box)[2])

    foreground = 0.0
    for frame_idx, expected_ids, expected in theirs.propagate_in_video(state):
        if frame_idx == 0:
            continue
        ids, masks = predictor.track(FRAMES[frame_idx])
        assert ids == expected_ids == ["a", 7]
        foreground += check(f"frame {frame_idx}", masks, expected)
        assert predictor.frame_idx == frame_idx
    assert foreground > 0.1, "hardly anything but background was compared"


def test_an_object_that_comes_later(predictor: SAM2CameraPredictor, tmp_path: Path) -> None:
    """A prompted conditioning frame is a frame of the video: the reference sees it where it came."""
    picked = [0, 1, 2, 3, 3, *range(4, NUM_FRAMES)]  # frame 3 is tracked, then prompted
    theirs, state = reference(tmp_path, [FRAMES[index] for index in picked])
    x, y = center(0)
    x1, y1 = center(1, 3)
    expected: dict[int, torch.Tensor] = {}
    # One by one: together, the second object would be tracked on the frames before its prompt, too.
    for obj_id, start, point in ((1, 0, [x, y]), (2, 4, [x1, y1])):
        theirs.reset_state(state)
        theirs.add_new_points_or_box(state, start, obj_id, [point], [1])
        for frame_idx, _, found in theirs.propagate_in_video(state, start_frame_idx=start):
            expected[frame_idx] = torch.cat([expected[frame_idx], found]) if frame_idx in expected else found.clone()

    predictor.load_first_frame(Image.fromarray(FRAMES[0]))
    predictor.add_new_prompt(0, 1, [[x, y]], [1])
    for frame_idx in (1, 2, 3):
        ids, masks = predictor.track(FRAMES[frame_idx])
        assert ids == [1]
        check(f"frame {frame_idx}", masks, expected[frame_idx][:1])
    predictor.add_conditioning_frame(FRAMES[3])
    frame_idx, ids, masks = predictor.add_new_prompt_during_track(point=[[x1, y1]], labels=[1])
    assert (frame_idx, ids) == (1, [1, 2]), "the second conditioning frame; the next id"
    assert (masks[0] == -1024).all(), "not known there yet"
    check("prompted", masks[1:], expected[4][1:])
    assert predictor.finalize_new_input()[1] == [1, 2]
    for place in range(5, len(picked)):
        ids, masks = predictor.track(FRAMES[picked[place]])
        assert ids == [1, 2]
        check(f"place {place}", masks, expected[place])
    assert predictor.condition_state["obj_id_to_idx"] == {1: 0, 2: 1}
    assert predictor.condition_state["tracking_has_started"]


def test_the_last_frame_is_prompted_where_no_other_was_given(predictor: SAM2CameraPredictor, tmp_path: Path) -> None:
    theirs, state = reference(tmp_path, list(FRAMES[1:]))
    theirs.add_new_mask(state, 0, 9, synthetic.BLOBS[1].mask(1, HEIGHT, WIDTH))
    expected = [found.clone() for _, _, found in theirs.propagate_in_video(state)]

    predictor.load_first_frame(FRAMES[0])
    predictor.add_new_prompt(0, 1, [list(center(0))], [1])
    predictor.track(FRAMES[1])
    mask = synthetic.BLOBS[1].mask(1, HEIGHT, WIDTH)
    _, ids, masks = predictor.add_new_prompt_during_track(mask=mask, obj_id=9)
    assert ids == [1, 9]
    assert ((masks[1, 0] > 0).numpy() == mask).mean() > 0.95
    for frame_idx in range(2, NUM_FRAMES):
        ids, masks = predictor.track(FRAMES[frame_idx])
        assert ids == [1, 9]
        check(f"frame {frame_idx}", masks[1:], expected[frame_idx - 1])


def test_a_picture_may_be_used_again_by_its_owner(predictor: SAM2CameraPredictor) -> None:
    def masks(reused: bool) -> torch.Tensor:
        buffer = FRAMES[0].copy()
        predictor.load_first_frame(buffer)
        if reused:
            buffer[:] = 0
        predictor.add_new_prompt(0, 1, [list(center(0))], [1])
        found: torch.Tensor = predictor.track(FRAMES[1])[1]
        return found

    assert torch.equal(masks(reused=True), masks(reused=False))


def test_what_it_refuses(predictor: SAM2CameraPredictor) -> None:
    for call in (
        lambda: predictor.track(FRAMES[0]),
        lambda: predictor.add_new_prompt(0, 1, [[1, 1]], [1]),
        lambda: predictor.add_conditioning_frame(FRAMES[0]),
    ):
        with pytest.raises(RuntimeError, match="Please call 'load_first_frame' first"):
            call()
    assert predictor.condition_state == {}
    predictor.load_first_frame(FRAMES[0])
    with pytest.raises(RuntimeError, match="No points are provided"):
        predictor.track(FRAMES[1])
    with pytest.raises(RuntimeError, match="No points are provided"):
        predictor.finalize_new_input()
    with pytest.raises(RuntimeError, match="there is no frame 1"):
        predictor.add_new_points(1, 1, [[1, 1]], [1])
    with pytest.raises(masklet.InvalidArgument, match="outside the picture"):
        predictor.add_new_prompt(0, 1, [[WIDTH + 9, 1]], [1])
    assert predictor.condition_state["obj_ids"] == [], "an object whose first prompt was refused is none"
    predictor.add_new_prompt(0, 1, [list(center(0))], [1])
    predictor.track(FRAMES[1])
    with pytest.raises(RuntimeError, match="frame 0 was tracked already"):
        predictor.add_new_prompt(0, 2, [[1, 1]], [1])
    predictor.reset_state()
    assert predictor.frame_idx == 0
