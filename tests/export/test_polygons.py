"""Outlines of masks as polygons: exact along the edges of pixels, with holes, and simplified."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from masklet.export.polygons import Ring, area, fill, joined, outer_rings, rings
from tests.support.recordings import HEIGHT, WIDTH, mask_of


def drawn(polygons: list[Ring], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels whose centres lie in any of the polygons, by the even-odd rule."""
    found = np.zeros(shape, np.bool_)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    for ring in polygons:
        inside = np.zeros(shape, np.bool_)
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (y0 > y) != (y1 > y)
                inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        found |= inside
    return found


def random_mask(seed: int) -> npt.NDArray[np.bool_]:
    """Blobs, holes, specks and pixels that touch at corners."""
    rng = np.random.default_rng(seed)
    small = rng.random((6, 8))
    smooth = np.asarray(Image.fromarray((small * 255).astype(np.uint8)).resize((40, 30), Image.Resampling.BICUBIC))
    return np.asarray((smooth > 120) ^ (rng.random((30, 40)) > 0.93))


@pytest.mark.parametrize("seed", range(12))
def test_rings_are_exact(seed: int) -> None:
    mask = random_mask(seed)
    found = rings(mask)
    assert sum(area(ring) for ring in found) == mask.sum()
    parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
    assert sum(area(ring) > 0 for ring in found) == parts
    np.testing.assert_array_equal(drawn([joined(found)], mask.shape), mask)
    np.testing.assert_array_equal(drawn(outer_rings(mask), mask.shape), mask)
    np.testing.assert_array_equal(fill(found, mask.shape), mask)
    assert len(outer_rings(mask)) == parts


def test_a_pixel_is_a_square() -> None:
    mask = np.zeros((4, 5), np.bool_)
    mask[2, 3] = True
    (ring,) = rings(mask)
    assert {tuple(corner) for corner in ring.tolist()} == {(3, 2), (4, 2), (4, 3), (3, 3)}
    assert area(ring) == 1


def test_a_mask_may_fill_the_picture_or_be_empty() -> None:
    (ring,) = rings(np.ones((3, 7), np.bool_))
    assert len(ring) == 4
    assert area(ring) == 21
    assert rings(np.zeros((3, 7), np.bool_)) == []
    assert outer_rings(np.zeros((3, 7), np.bool_)) == []


@pytest.mark.parametrize("tolerance", [1.0, 2.0])
@pytest.mark.parametrize("object_id", [1, 2])
def test_simplified_rings_are_near_and_short(object_id: int, tolerance: float) -> None:
    mask = mask_of(object_id, 1)
    exact, simple = rings(mask), rings(mask, tolerance=tolerance)
    assert sum(map(len, simple)) < sum(map(len, exact)) / 2
    again = drawn(outer_rings(mask, tolerance=tolerance), (HEIGHT, WIDTH))
    assert (again & mask).sum() / (again | mask).sum() > 1 - 0.07 * tolerance
    for ring, original in zip(simple, exact, strict=True):
        for corner in original:
            assert min(_distance(corner, a, b) for a, b in zip(ring, np.roll(ring, -1, 0), strict=True)) <= tolerance


def _distance(point: Ring, a: Ring, b: Ring) -> float:
    along = b - a
    share = np.clip(((point - a) @ along) / (along @ along), 0, 1)
    return float(np.linalg.norm(point - a - share * along))


def test_a_speck_does_not_vanish() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[4, 4] = True
    assert len(rings(mask, tolerance=5.0)) == 1
    assert area(rings(mask, tolerance=5.0)[0]) > 0


def test_rings_may_leave_the_picture() -> None:
    ring = np.array([[-3.0, -2.0], [4.5, -2.0], [4.5, 99.0], [-3.0, 99.0]])
    expected = np.zeros((5, 8), np.bool_)
    expected[:, :4] = True
    np.testing.assert_array_equal(fill([ring], (5, 8)), expected)
    slanted = [np.array([[1.2, 0.3], [7.4, 2.1], [3.3, 4.9]])]
    np.testing.assert_array_equal(fill(slanted, (5, 8)), drawn(slanted, (5, 8)))


def test_other_programs_draw_them_alike() -> None:
    """Pillow and OpenCV draw polygons of large masks as they were, but for the pixels of the outline."""
    mask = mask_of(1, 2)
    big = np.kron(mask, np.ones((8, 8), np.bool_))
    (ring,) = outer_rings(big)
    picture = Image.new("1", (big.shape[1], big.shape[0]))
    ImageDraw.Draw(picture).polygon([tuple(corner) for corner in ring.tolist()], fill=1)
    filled = cv2.fillPoly(np.zeros(big.shape, np.uint8), [ring.astype(np.int32)], 1).astype(np.bool_)
    for again in (np.asarray(picture), filled):
        assert (again & big).sum() / (again | big).sum() > 0.97
