"""`SAM2VideoPredictor` on this side of the wire; `tests/parity` holds its masks against those of sam2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import masklet
from masklet.compat import InferenceState, SAM2VideoPredictor
from masklet.compat._videos.state import ObjectOutputs
from tests.support.scripted.fake_script import HEIGHT, WIDTH, Script
from tests.support.scripted.fake_server import FakeServer

FRAMES = 6
POINT: dict[str, Any] = {"points": [[20, 20]], "labels": [1]}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Script(frame_count=FRAMES)) as running:
        yield running


@pytest.fixture
def predictor(server: FakeServer) -> SAM2VideoPredictor:
    return SAM2VideoPredictor(server.address)


@pytest.fixture
def state(predictor: SAM2VideoPredictor) -> InferenceState:
    return predictor.init_state(b"video")


def logits(value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full((2, 2), value, np.float32)


def test_the_state_answers_what_programs_read(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    assert (state["num_frames"], state["video_height"], state["video_width"]) == (FRAMES, HEIGHT, WIDTH)
    predictor.add_new_points_or_box(state, 0, "cat", **POINT)
    predictor.add_new_points_or_box(state, 0, 0, **POINT)
    assert state["obj_ids"] == ["cat", 0]
    assert state["obj_id_to_idx"] == {"cat": 0, 0: 1}
    assert state["obj_idx_to_id"] == {0: "cat", 1: 0}
    assert state["offload_video_to_cpu"] is False
    assert len(state) == len(list(state))
    with pytest.raises(KeyError, match="on the server"):
        state["output_dict_per_obj"]


def test_frame_0_is_prepared_as_sam2_does(
    server: FakeServer, predictor: SAM2VideoPredictor, state: InferenceState
) -> None:
    predictor.add_new_points_or_box(state, 3, "cat", **POINT)
    predictor.add_new_points_or_box(state, 3, "dog", **POINT)  # answered after all that was sent before it
    assert [m.prepare.frame_index for m in server.sessions[0].messages if m.HasField("prepare")] == [0]


def test_ids_of_any_kind_become_numbers_that_are_not_used_twice(
    server: FakeServer, predictor: SAM2VideoPredictor, state: InferenceState
) -> None:
    predictor.add_new_points_or_box(state, 0, 0, **POINT)
    predictor.add_new_points_or_box(state, 0, ("a", 1), **POINT)
    predictor.remove_object(state, 0)
    predictor.add_new_points_or_box(state, 0, 0, **POINT)
    assert [prompt.object_id for prompt in server.sessions[0].prompts] == [1, 2, 3]
    assert state["obj_ids"] == [("a", 1), 0]


def test_an_object_of_which_nothing_is_known_there_has_no_mask(
    predictor: SAM2VideoPredictor, state: InferenceState
) -> None:
    predictor.add_new_points_or_box(state, 0, 1, **POINT)
    frame_idx, obj_ids, masks = predictor.add_new_points_or_box(state, 3, 2, **POINT)
    assert (frame_idx, obj_ids) == (3, [1, 2])
    assert masks.shape == (2, 1, HEIGHT, WIDTH)
    assert masks.dtype == torch.float32
    assert (masks[0] == -1024).all()
    assert masks[1].max() == 3, "the fake's logits are 0 to 3"


def test_points_may_be_tensors_with_a_batch_of_one_and_in_parts_of_the_video(
    server: FakeServer, predictor: SAM2VideoPredictor, state: InferenceState
) -> None:
    predictor.add_new_points_or_box(
        state,
        0,
        1,
        points=torch.tensor([[[0.5, 0.25]]]),
        labels=torch.tensor([[0]]),
        box=torch.tensor([[0.0, 0.0, 1.0, 0.5]]),
        normalize_coords=False,
    )
    (prompt,) = server.sessions[0].prompts
    assert (prompt.points[0].x, prompt.points[0].y) == (WIDTH / 2, HEIGHT / 4)
    assert (prompt.box.x0, prompt.box.y0, prompt.box.x1, prompt.box.y1) == (0, 0, WIDTH, HEIGHT / 2)
    assert not prompt.keep_old_points
    predictor.add_new_points(state, 0, 1, **POINT, clear_old_points=False)
    assert server.sessions[0].prompts[1].keep_old_points


def test_what_sam2_refuses_is_refused_as_there(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    with pytest.raises(ValueError, match="must be provided together"):
        predictor.add_new_points_or_box(state, 0, 1, points=[[1, 1]])
    with pytest.raises(ValueError, match="at least one of points or box"):
        predictor.add_new_points_or_box(state, 0, 1)
    with pytest.raises(ValueError, match="cannot add box without clearing old points"):
        predictor.add_new_points_or_box(state, 0, 1, box=[1, 1, 9, 9], clear_old_points=False)
    with pytest.raises(RuntimeError, match="No input points or masks are provided for any object"):
        next(predictor.propagate_in_video(state))
    with pytest.raises(RuntimeError, match="Cannot remove object id 5"):
        predictor.remove_object(state, 5, strict=True)
    assert predictor.remove_object(state, 5) == ([], [])
    with pytest.raises(RuntimeError, match="there is no object id 5"):
        predictor.clear_all_prompts_in_frame(state, 0, 5)
    predictor.add_new_points_or_box(state, 0, 1, **POINT)
    predictor.clear_all_prompts_in_frame(state, 0, 1)
    with pytest.raises(RuntimeError, match="No input points or masks are provided for object id 1"):
        predictor.propagate_in_video_preflight(state)


def test_what_masklet_refuses(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    with pytest.raises(ValueError, match=r"must be \[48, 64\]"):
        predictor.add_new_mask(state, 0, 1, np.ones((4, 4), bool))
    with pytest.raises(masklet.InvalidArgument, match="no foreground"):
        predictor.add_new_mask(state, 0, 1, np.zeros((HEIGHT, WIDTH), bool))
    with pytest.raises(masklet.InvalidArgument, match="no such frame"):
        predictor.add_new_points_or_box(state, FRAMES, 1, **POINT)
    assert state["obj_ids"] == [], "an object whose first prompt was refused is none"


def test_a_mask_of_probabilities_is_made_binary(
    server: FakeServer, predictor: SAM2VideoPredictor, state: InferenceState
) -> None:
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[:10, :10], mask[20:, :] = 0.5, 0.49
    predictor.add_new_mask(state, 0, 1, mask)
    sent = server.sessions[0].prompts[0].mask
    decoded = masklet.decode_rle({"size": [sent.height, sent.width], "counts": sent.data.decode()})
    np.testing.assert_array_equal(decoded, mask.numpy() >= 0.5)


def test_propagation_shows_every_object_on_every_frame(predictor: SAM2VideoPredictor, state: InferenceState) -> None:
    predictor.add_new_points_or_box(state, 1, "a", **POINT)
    predictor.add_new_points_or_box(state, 1, "b", **POINT)
    shown = list(predictor.propagate_in_video(state, max_frame_num_to_track=2))
    assert [frame_idx for frame_idx, _, _ in shown] == [1, 2, 3], "from the first frame with a prompt"
    assert all(obj_ids == ["a", "b"] and masks.shape == (2, 1, HEIGHT, WIDTH) for _, obj_ids, masks in shown)
    assert [i for i, _, _ in predictor.propagate_in_video(state, 4, 1, reverse=True)] == [4, 3]
    predictor.reset_state(state)
    assert state["obj_ids"] == []


def test_the_session_ends_with_the_state(server: FakeServer, predictor: SAM2VideoPredictor) -> None:
    first, second = predictor.init_state(b"video"), predictor.init_state(b"video", async_loading_frames=True)
    first.close()
    assert server.sessions[0].ended.wait(10)
    del second
    assert server.sessions[1].ended.wait(10)


def test_what_is_shown_is_what_sam2_would_show() -> None:
    """Prompts wait apart by kind until a propagation begins; a cleared conditioning frame is a tracked one."""
    outputs = ObjectOutputs(1)
    assert outputs.shown(0, is_cond=True) is None
    assert outputs.prompted(0, logits(1)), "nothing is tracked: a conditioning frame"
    outputs.settle()
    outputs.add_tracked(0, logits(9))
    outputs.add_tracked(1, logits(2))
    assert outputs.shown(0, is_cond=True) is not None
    np.testing.assert_array_equal(outputs.shown(0, is_cond=True), logits(1), "as prompted, not as tracked")
    assert not outputs.prompted(1, logits(3)), "a correction"
    np.testing.assert_array_equal(outputs.shown(1, is_cond=False), logits(3))
    np.testing.assert_array_equal(outputs.shown(1, is_cond=True), logits(2), "sam2 looks up one kind alone")
    outputs.clear(0)
    np.testing.assert_array_equal(outputs.shown(0, is_cond=False), logits(1))
    assert outputs.settled[True] == {}
    assert outputs.prompted(0, logits(4)), "cleared, it counts as never tracked"


def test_without_torch_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from masklet.compat import SAM2ImagePredictor, SAM2VideoPredictor\n"
        "SAM2ImagePredictor('127.0.0.1:1')\n"
        "try:\n    SAM2VideoPredictor('127.0.0.1:1')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install torch" in done.stdout


def test_the_frames_are_counted_and_stay_on_the_server(state: InferenceState) -> None:
    assert len(state["images"]) == FRAMES
    assert state["device"] == state["storage_device"] == torch.device("cpu")
    with pytest.raises(NotImplementedError, match="the frames are on the server"):
        state["images"][0]
