"""What a prompt accepts: boxes at the picture's edge, and masks that are masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from masklet import InvalidArgument, Prompt


@pytest.mark.parametrize("box", [(-0.4, 0, 10, 10), (0, -0.9, 64.7, 48.2), (0, 0, 64, 48), (63.5, 47.5, 64.9, 48.9)])
def test_a_box_may_reach_outside_by_less_than_a_pixel(box: Any) -> None:
    Prompt(box=box).check_size(48, 64)


@pytest.mark.parametrize("box", [
    (-1, 0, 10, 10), (0, 0, 65, 48), (0, 0, 64, 148), (64, 0, 64.5, 10), (-0.9, 0, -0.1, 10), (0, 48, 10, 48.5),
])  # fmt: skip
def test_a_box_beside_the_picture_or_far_outside_is_refused(box: Any) -> None:
    with pytest.raises(InvalidArgument, match="reaches outside the picture of 64x48 pixels"):
        Prompt(box=box).check_size(48, 64)


@pytest.mark.parametrize("mask", [
    np.eye(4, dtype=bool), np.eye(4, dtype=np.uint8), np.eye(4) * 255.0, np.eye(4, dtype=np.float16),
    np.eye(4, dtype=int), np.eye(4, dtype=np.uint8) * np.arange(4, dtype=np.uint8) + np.eye(4, dtype=np.uint8),
])  # fmt: skip
def test_masks(mask: Any) -> None:
    prompt = Prompt(mask=mask)
    assert prompt.mask is not None
    np.testing.assert_array_equal(prompt.mask, np.eye(4, dtype=bool))


@pytest.mark.parametrize(("mask", "message"), [
    (np.eye(4) * 12 - 6, "has values below 0, as logits do; give a binary mask: logits > 0"),
    (np.full((4, 4), np.nan), "has values below 0, as logits do"),
    (np.linspace(0, 1, 16).reshape(4, 4), "has fractions, as probabilities do"),
    (np.eye(4, dtype=int) - 1, "has values below 0"),
    (np.zeros((4, 4)), "has no foreground pixel"),
    (np.full((4, 4), "x"), "must be bool"),
])  # fmt: skip
def test_what_is_no_mask(mask: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Prompt(mask=mask)
