from __future__ import annotations

import numpy as np
import pytest
import torch

from training.config import PromptMix
from training.learning.prompts import BoolArray, Prompt, PromptKind, click, draw_corrections, draw_prompt

SIZE = 64


def squares() -> BoolArray:
    """Four frames with a square each, elsewhere and of another size."""
    truth = np.zeros((4, SIZE, SIZE), np.bool_)
    for i in range(4):
        truth[i, 10 + i : 30 + 3 * i, 20 : 40 + i] = True
    return truth


def only(kind: PromptKind) -> PromptMix:
    return PromptMix(**{other.value: float(other is kind) for other in PromptKind})


def drawn(kind: PromptKind, truth: BoolArray, times: int = 50) -> list[Prompt]:
    rng = np.random.default_rng(0)
    return [draw_prompt(rng, truth, only(kind)) for _ in range(times)]


def at(truth: BoolArray, coords: torch.Tensor) -> BoolArray:
    """``bool[B, P]``: whether points lie on the object."""
    points = coords.numpy().astype(int)
    return np.stack([mask[xy[:, 1], xy[:, 0]] for mask, xy in zip(truth, points, strict=True)])


def test_one_click_lies_on_the_object() -> None:
    for prompt in drawn(PromptKind.point, squares()):
        assert prompt.coords is not None
        assert prompt.labels is not None
        assert prompt.coords.shape == (4, 1, 2)
        assert prompt.labels.dtype == torch.int32
        assert (prompt.labels == 1).all()
        assert at(squares(), prompt.coords).all()


def test_several_clicks_say_what_they_lie_on() -> None:
    counts = set()
    for prompt in drawn(PromptKind.points, squares()):
        assert prompt.coords is not None
        assert prompt.labels is not None
        counts.add(tuple(prompt.labels[0].tolist()))
        assert np.array_equal(at(squares(), prompt.coords), prompt.labels.numpy() == 1)
    assert all(len(labels) >= 2 for labels in counts)
    assert len(counts) > 4
    assert any(0 in labels for labels in counts)


def test_boxes_are_about_right() -> None:
    for prompt in drawn(PromptKind.box, squares()):
        assert prompt.coords is not None
        assert prompt.labels is not None
        assert prompt.labels.tolist() == [[2, 3]] * 4
        first = prompt.coords[0].numpy()
        assert np.abs(first - [[20, 10], [39, 29]]).max() < 8
        assert (first[1] > first[0]).all()


def test_masks_are_the_truth_or_nearly_so() -> None:
    truth = squares()
    exact = 0
    for prompt in drawn(PromptKind.mask, truth):
        assert prompt.mask is not None
        assert prompt.coords is None
        masks = prompt.mask[:, 0].numpy() > 0
        overlap = (masks & truth).sum(axis=(1, 2)) / (masks | truth).sum(axis=(1, 2))
        assert (overlap > 0.5).all()
        exact += int((overlap == 1).sum())
    assert 100 < exact < 190


def test_logits_are_a_mask_as_the_decoder_draws_it_and_a_point_that_says_nothing() -> None:
    truth = squares()
    overlaps = []
    for prompt in drawn(PromptKind.logits, truth):
        assert prompt.mask is None
        assert prompt.logits is not None
        assert prompt.labels is not None
        assert prompt.labels.tolist() == [[-1]] * 4
        assert prompt.logits.shape == (4, 1, SIZE // 4, SIZE // 4)
        assert prompt.logits.min() >= -10
        assert prompt.logits.max() <= 10
        small = truth.reshape(4, SIZE // 4, 4, SIZE // 4, 4).mean(axis=(2, 4)) > 0.5
        drawn_masks = prompt.logits[:, 0].numpy() > 0
        overlaps += list((drawn_masks & small).sum(axis=(1, 2)) / (drawn_masks | small).sum(axis=(1, 2)))
    assert min(overlaps) > 0.4
    assert np.median(overlaps) > 0.8


def test_kinds_come_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    mix = PromptMix(point=3, points=0, box=1, mask=0, logits=0)
    kinds = [draw_prompt(rng, squares(), mix).kind for _ in range(200)]
    assert set(kinds) == {PromptKind.point, PromptKind.box}
    assert 120 < kinds.count(PromptKind.point) < 180


def test_an_object_that_fills_the_frame_can_be_prompted() -> None:
    full = np.ones((2, SIZE, SIZE), np.bool_)
    for kind in PromptKind:
        assert len(drawn(kind, full, 10)) == 10


def test_corrections_lie_where_the_prediction_is_wrong() -> None:
    truth = squares()
    prediction = truth.copy()
    prediction[0, 10:20] = False  # misses its upper half
    prediction[1, 50:60, 50:60] = True  # sees something that is not there
    truth[3] = False  # nothing there, and nothing predicted
    prediction[3] = False
    for seed in range(20):
        coords, labels = draw_corrections(np.random.default_rng(seed), truth, prediction)
        assert coords.shape == (4, 1, 2)
        assert labels[:, 0].tolist() == [1, 0, 1, 0]  # the third is right as it is
        wrong = at(truth ^ prediction, coords)[:, 0]
        assert wrong.tolist() == [True, True, False, False]


def test_half_of_the_clicks_are_at_the_most_interior_point() -> None:
    region = np.zeros((SIZE, SIZE), np.bool_)
    region[10:31, 20:41] = True
    rng = np.random.default_rng(0)
    points = [click(rng, region) for _ in range(200)]
    assert 70 < points.count((30.0, 20.0)) < 130
    assert len(set(points)) > 50


def test_prompts_move_to_a_device() -> None:
    (prompt,) = drawn(PromptKind.box, squares(), 1)
    moved = prompt.to(torch.device("meta"))
    assert moved.coords is not None
    assert moved.coords.device.type == "meta"
    assert moved.mask is None


def test_a_mix_of_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match="scribble"):
        PromptMix.model_validate({"scribble": 1})
