"""Grids, crops, boxes and scores, against sam2's own; duplicates, against a plain formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sam2.utils import amg

from masklet.compat._images import crops


@pytest.mark.parametrize(("side", "layers", "downscale"), [(32, 0, 1), (7, 2, 2), (16, 1, 1)])
def test_grids(side: int, layers: int, downscale: int) -> None:
    expected = amg.build_all_layer_point_grids(side, layers, downscale)
    found = crops.point_grids(side, layers, downscale)
    assert len(found) == len(expected) == layers + 1
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-15)


@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (37, 991), (64, 64)])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_crops(size: tuple[int, int], layers: int) -> None:
    boxes, layer_numbers = amg.generate_crop_boxes(size, layers, 512 / 1500)
    assert crops.crop_boxes(*size, layers, 512 / 1500) == [
        (tuple(box), layer) for box, layer in zip(boxes, layer_numbers, strict=True)
    ]


def test_boxes_around_masks() -> None:
    rng = np.random.default_rng(3)
    masks = rng.random((40, 9, 13)) > 0.93
    masks[0] = False
    expected = amg.batched_mask_to_box(torch.from_numpy(masks)).tolist()
    assert [list(crops.mask_box(mask)) for mask in masks] == expected
    assert expected[0] == [0, 0, 0, 0]


def test_boxes_at_the_edge_of_a_crop() -> None:
    rng = np.random.default_rng(4)
    picture, crop = (0, 0, 400, 300), (100, 0, 300, 200)
    boxes = np.sort(rng.integers(0, 201, (300, 2, 2)), axis=1).reshape(-1, 4)
    expected = amg.is_box_near_crop_edge(torch.from_numpy(boxes), list(crop), list(picture)).tolist()
    placed = boxes + np.array([crop[0], crop[1], crop[0], crop[1]])
    found = [crops.touches_crop((int(a), int(b), int(c), int(d)), crop, picture) for a, b, c, d in placed]
    assert found == expected
    assert 0 < sum(found) < len(found)


def test_stability() -> None:
    logits = np.random.default_rng(5).normal(0, 2, (6, 20, 30)).astype(np.float32)
    logits[5] = -9
    expected = amg.calculate_stability_score(torch.from_numpy(logits), 0.5, 1.0).numpy()
    found = crops.stability_scores(logits, 0.5, 1.0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[5])


def plain(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], threshold: float) -> list[int]:
    """Suppression as textbooks have it: one pair of boxes at a time."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        x0, y0, x1, y1 = (np.float32(v) for v in boxes[index])
        for other in kept:
            a0, b0, a1, b1 = (np.float32(v) for v in boxes[other])
            shared = max(np.float32(0), min(x1, a1) - max(x0, a0)) * max(np.float32(0), min(y1, b1) - max(y0, b0))
            union = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - shared
            if union > 0 and shared / union > threshold:
                break
        else:
            kept.append(index)
    return kept


@given(
    st.lists(
        st.tuples(*[st.integers(0, 12)] * 4, st.integers(0, 4)),
        max_size=12,
    )
)
def test_duplicates(values: list[tuple[int, int, int, int, int]]) -> None:
    corners = np.array([value[:4] for value in values], np.float32).reshape(-1, 2, 2)
    boxes = np.sort(corners, axis=1).reshape(-1, 4)
    scores = np.array([value[4] / 4 for value in values], np.float32)
    assert crops.without_duplicates(boxes, scores, 0.4).tolist() == plain(boxes, scores, 0.4)
