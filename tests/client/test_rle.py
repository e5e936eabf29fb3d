"""Run-lengths against pycocotools, which is their reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

import masklet


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_round_trip(mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> None:
    rle = masklet.encode_rle(mask)
    assert rle["size"] == list(mask.shape)
    assert coco.area({"size": rle["size"], "counts": rle["counts"].encode()}) == mask.sum()
    decoded = masklet.decode_rle(rle)
    assert decoded.dtype == np.bool_
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("fill", [False, True])
def test_long_runs(fill: bool) -> None:
    mask = np.full((1080, 1920), fill)
    mask[500, 700] = not fill
    np.testing.assert_array_equal(masklet.decode_rle(masklet.encode_rle(mask)), mask)


@pytest.mark.parametrize("counts", ["", " ", "p", "P", "zz", "0é", "o" * 50, "o" * 12 + "0", "5", "N0"])
def test_malformed_counts_are_refused(counts: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match="rle"):
        masklet.decode_rle({"size": [4, 4], "counts": counts})


def test_another_size_is_refused() -> None:
    rle = masklet.encode_rle(np.ones((4, 4), np.bool_))
    with pytest.raises(masklet.InvalidArgument, match="5x4 pixels"):
        masklet.decode_rle({"size": [4, 5], "counts": rle["counts"]})
