"""Prompts as the model sees them, and the choice of a candidate; tests/parity compares masks with SAM 2's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sam2.modeling.sam2_base import NO_OBJ_SCORE

from masklet.prompts import Prompt
from masklet_server.engine.network.mask_decoder import MaskDecoder
from masklet_server.engine.network.tensors import CandidateBatch, Features
from tests.support.engine import HEIGHT, SIZE, WIDTH, features, small_network


def decoder() -> MaskDecoder:
    return small_network().decoder


def candidates() -> CandidateBatch:
    """Candidates for two visible objects, with a click each on the same frame."""
    batch = Features.stack([features(0), features(0)])
    points = torch.tensor([[[40.0, 50.0]], [[90.0, 75.0]]]), torch.ones(2, 1, dtype=torch.int32)
    top = small_network().without_memory(batch.top)
    with torch.inference_mode():
        found = decoder().candidates(top, batch.fine, points=points, mask_logits=None, multimask=True)
    return replace(found, object_score=torch.full_like(found.object_score, 3.0))


def test_points_are_scaled_to_the_models_square_and_follow_the_box() -> None:
    prompt = Prompt(
        point_coords=[[WIDTH / 2, HEIGHT / 4], [0.0, 0.0]], point_labels=[1, 0], box=[0, 0, WIDTH, HEIGHT / 2]
    )
    coords, labels = decoder().model_points(prompt, height=HEIGHT, width=WIDTH)
    assert coords.tolist() == [[0, 0], [SIZE, SIZE / 2], [SIZE / 2, SIZE / 4], [0, 0]]
    assert labels.tolist() == [2, 3, 1, 0]


@torch.inference_mode()
def test_each_object_has_the_candidate_that_is_picked_for_it() -> None:
    found = candidates()
    assert found.logits.shape == (2, 3, SIZE // 4, SIZE // 4)
    picked = decoder().pick(found, torch.tensor([2, 0]))
    assert torch.equal(picked.logits[:, 0], torch.stack([found.logits[0, 2], found.logits[1, 0]]))
    assert torch.equal(picked.predicted_iou, torch.stack([found.predicted_iou[0, 2], found.predicted_iou[1, 0]]))
    assert torch.equal(picked.object_score, found.object_score)


@torch.inference_mode()
def test_an_object_that_is_not_there_has_no_mask_and_the_pointer_that_says_so() -> None:
    found = candidates()
    score = torch.tensor([[-1.0], [1.0]])
    picked = decoder().pick(replace(found, object_score=score), torch.tensor([1, 1]))
    assert torch.equal(picked.logits[0], torch.full_like(picked.logits[0], NO_OBJ_SCORE))
    assert torch.equal(picked.logits[1, 0], found.logits[1, 1])
    nobody = small_network().model.no_obj_ptr[0]
    assert torch.equal(picked.pointer[0], nobody)
    assert not torch.equal(picked.pointer[1], nobody)


@torch.inference_mode()
def test_a_mask_is_taken_for_the_output() -> None:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 32:96, 16:64] = 1
    decoded = decoder().decode_mask(Features.stack([features(0)]), mask)
    assert decoded.logits[0, 0, 16, 10].item() == pytest.approx(10)
    assert decoded.logits[0, 0, 2, 2].item() == pytest.approx(-10)
    assert decoded.predicted_iou.tolist() == [1]
    assert decoded.object_score.tolist() == [[10]]
    nothing = decoder().decode_mask(Features.stack([features(0)]), torch.zeros(1, 1, SIZE, SIZE))
    assert nothing.object_score.tolist() == [[-10]]
    assert torch.equal(nothing.pointer, small_network().model.no_obj_ptr)


def test_one_click_is_ambiguous_and_a_box_is_not() -> None:
    assert decoder().use_multimask(initial=True, num_points=1)
    assert not decoder().use_multimask(initial=True, num_points=2)
