"""Boxes and areas against the plain NumPy way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis.extra import numpy as hnp

from masklet_server.masks.encoding import MaskEncoding, decode
from masklet_server.masks.geometry import Geometry, measure
from masklet_server.masks.pool import MaskPool


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)))
def test_box_and_area_are_those_of_the_pixels(mask: npt.NDArray[np.bool_]) -> None:
    rows, columns = np.nonzero(mask)
    geometry = measure(mask)
    assert geometry.area == len(rows)
    if len(rows):
        assert geometry.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    else:
        assert geometry.box is None


def test_views_are_measured_as_they_look() -> None:
    mask = np.zeros((10, 20), np.bool_)
    mask[2:4, 6:12] = True
    assert measure(mask.T) == Geometry((2, 6, 4, 12), 12)


async def test_pool_encodes_and_measures_off_the_event_loop() -> None:
    pool = MaskPool(threads=1)
    mask = np.zeros((10, 20), np.bool_)
    mask[2:4, 6:12] = True
    prepared = await pool.prepare(mask, MaskEncoding.COCO_RLE)
    pool.close()
    assert prepared.geometry == Geometry((6, 2, 12, 4), 12)
    assert np.array_equal(decode(prepared.encoded), mask)
