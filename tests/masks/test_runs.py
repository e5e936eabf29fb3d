"""Runs compared with plain NumPy and with pycocotools."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from masklet_server.masks.encoding import MaskEncoding
from masklet_server.masks.pool import MaskPool
from masklet_server.masks.runs import Runs
from tests.support.masks import decode

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30))


@given(MASKS)
def test_lengths_are_those_of_coco(mask: npt.NDArray[np.bool_]) -> None:
    runs = Runs.of(mask)
    size = list(mask.shape)
    theirs = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    assert coco.frPyObjects({"size": size, "counts": runs.lengths.tolist()}, *size) == theirs
    assert runs.lengths.sum() == mask.size
    assert (runs.lengths[1:] > 0).all()
    assert np.array_equal(runs.mask, mask)
    assert runs.mask.flags.c_contiguous


@given(MASKS)
def test_box_and_area_are_those_of_the_pixels(mask: npt.NDArray[np.bool_]) -> None:
    rows, columns = np.nonzero(mask)
    runs = Runs.of(mask)
    assert runs.area == len(rows)
    if len(rows):
        assert runs.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    else:
        assert runs.box is None


def test_views_are_taken_as_they_look() -> None:
    mask = np.zeros((10, 20), np.bool_)
    mask[2:4, 6:12] = True
    turned = Runs.of(mask.T)
    assert (turned.height, turned.width) == (20, 10)
    assert (turned.box, turned.area) == ((2, 6, 4, 12), 12)
    assert np.array_equal(Runs.of(mask[::-1, ::3]).mask, mask[::-1, ::3])


@pytest.mark.parametrize("encoding", [MaskEncoding.COCO_RLE, MaskEncoding.PNG])
async def test_pool_encodes_and_measures_off_the_event_loop(encoding: MaskEncoding) -> None:
    pool = MaskPool(threads=1)
    mask = np.zeros((10, 20), np.bool_)
    mask[2:4, 6:12] = True
    prepared = await pool.prepare(Runs.of(mask), encoding)
    pool.close()
    assert (prepared.box, prepared.area) == ((6, 2, 12, 4), 12)
    assert np.array_equal(decode(prepared.encoded), mask)


@given(MASKS, hnp.arrays(np.uint8, 4, elements={"min_value": 0, "max_value": 3}))
def test_runs_of_a_part_are_those_of_the_mask(part: npt.NDArray[np.bool_], around: npt.NDArray[np.uint8]) -> None:
    top, bottom, left, right = around.tolist()
    mask = np.pad(part, ((top, bottom), (left, right)))
    runs = Runs.of_part(part, top, left, *mask.shape)
    assert (runs.height, runs.width) == mask.shape
    assert np.array_equal(runs.lengths, Runs.of(mask).lengths)
