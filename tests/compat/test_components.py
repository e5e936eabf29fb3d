"""Connected parts, against OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from masklet.compat._images.components import component_areas, without_specks


def of_opencv(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    areas[0] = 0
    found: npt.NDArray[np.int64] = areas[labels]
    return found


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans()))
def test_areas_are_those_of_opencv(mask: npt.NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(component_areas(mask), of_opencv(mask))


def test_a_spiral_is_one_part() -> None:
    spiral = np.zeros((41, 41), np.bool_)
    x = y = 20
    dx, dy = 1, 0
    for length in range(2, 38, 2):
        for _ in range(2):
            for _ in range(length):
                spiral[y, x] = True
                x, y = x + dx, y + dy
            dx, dy = -dy, dx
    assert len(np.unique(component_areas(spiral))) == 2
    np.testing.assert_array_equal(component_areas(spiral), of_opencv(spiral))


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_holes_and_spots_of_the_area_or_less_are_treated(threshold: float) -> None:
    logits = np.full((1, 12, 20), threshold - 1, np.float32)
    logits[0, 2:10, 2:10] = threshold + 1
    logits[0, 4, 4:7] = threshold  # a hole of 3 pixels: the threshold itself is background
    logits[0, 7, 7] = threshold - 1  # one of 1
    logits[0, 5, 15:17] = threshold + 1  # a spot of 2
    found = without_specks(logits, threshold, 3, 1)
    assert (found[0, 2:10, 2:10] > threshold).all()
    assert found[0, 4, 5] == threshold + 10
    assert (found[0, 5, 15:17] > threshold).all(), "a spot of 2 is more than 1"
    found = without_specks(logits, threshold, 0, 2)
    assert (found[0, 5, 15:17] == threshold - 10).all()
    np.testing.assert_array_equal(found[0, :, :12], logits[0, :, :12])
