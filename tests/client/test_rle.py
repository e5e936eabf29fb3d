"""Run-lengths against pycocotools, which is their reference."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

import masklet

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(MASKS)
def test_round_trip(mask: npt.NDArray[np.bool_]) -> None:
    rle = masklet.rle.encode(mask)
    assert rle["size"] == list(mask.shape)
    assert coco.area({"size": rle["size"], "counts": rle["counts"].encode()}) == mask.sum()
    decoded = masklet.rle.decode(rle)
    assert decoded.dtype == np.bool_
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)


@given(MASKS)
def test_a_mask_is_encoded_as_pycocotools_encodes_it(mask: npt.NDArray[np.bool_]) -> None:
    theirs = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    assert masklet.rle.encode(mask)["counts"].encode() == theirs["counts"]


# Up to here, pycocotools takes five characters a number. Where every number takes six, it writes one byte past the end
# of its buffer, which ends the process now and then.
PYCOCOTOOLS_LONGEST = 2**23


@given(st.lists(st.integers(0, PYCOCOTOOLS_LONGEST), min_size=1, max_size=30))
def test_runs_of_any_length_are_written_as_pycocotools_writes_them(lengths: list[int]) -> None:
    size = [1, sum(lengths)]  # pycocotools counts in 32 bits
    theirs = coco.frPyObjects({"size": size, "counts": lengths}, *size)["counts"]
    assert masklet.rle.write_counts(np.array(lengths, np.int64)) == theirs


@given(st.lists(st.integers(0, 2**34 - 1), min_size=1, max_size=30))
def test_runs_of_any_length_are_read_as_they_were_written(lengths: list[int]) -> None:
    counts = masklet.rle.write_counts(np.array(lengths, np.int64))
    assert masklet.rle.read_counts(counts, 1, sum(lengths)).tolist() == lengths


@pytest.mark.parametrize("turn", [np.transpose, np.flipud, lambda mask: mask[::2, 1::3]])
def test_views_are_taken_as_they_look(turn: object) -> None:
    assert callable(turn)
    view = turn(np.arange(20 * 31).reshape(20, 31) % 7 < 3)
    rle = masklet.rle.encode(view)
    assert rle == masklet.rle.encode(view.copy())
    np.testing.assert_array_equal(masklet.rle.decode(rle), view)


@pytest.mark.parametrize("fill", [False, True])
def test_long_runs(fill: bool) -> None:
    mask = np.full((1080, 1920), fill)
    mask[500, 700] = not fill
    np.testing.assert_array_equal(masklet.rle.decode(masklet.rle.encode(mask)), mask)


def test_a_mask_may_hold_other_numbers_than_0_and_1() -> None:
    mask = np.array([[0, 255], [7, 0]], np.uint8)
    assert masklet.rle.encode(mask) == masklet.rle.encode(mask > 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_a_mask_without_pixels(shape: tuple[int, int]) -> None:
    assert masklet.rle.decode(masklet.rle.encode(np.zeros(shape, np.bool_))).shape == shape


def test_a_mask_has_two_dimensions() -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"^mask: has the shape \[1, 4, 4\], must be \[H, W\]"):
        masklet.rle.encode(np.zeros((1, 4, 4), np.bool_))


@pytest.mark.parametrize("counts", ["", " ", "p", "P", "zz", "0é", "o" * 50, "o" * 12 + "0", "5", "N0"])
def test_malformed_counts_are_refused(counts: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match="rle"):
        masklet.rle.decode({"size": [4, 4], "counts": counts})


def test_another_size_is_refused() -> None:
    rle = masklet.rle.encode(np.ones((4, 4), np.bool_))
    with pytest.raises(masklet.InvalidArgument, match="the runs make 16 pixels, but 5x4 has 20"):
        masklet.rle.decode({"size": [4, 5], "counts": rle["counts"]})


def test_errors_blame_the_field_that_was_named() -> None:
    with pytest.raises(masklet.InvalidArgument) as caught:
        masklet.rle.read_counts(b"?", 4, 4, field="prompt.mask.data")
    assert caught.value.violations[0].field == "prompt.mask.data"


def test_the_old_names_are_the_same_functions() -> None:
    assert masklet.encode_rle is masklet.rle.encode
    assert masklet.decode_rle is masklet.rle.decode
    assert masklet.Rle is masklet.rle.Rle


def test_run_lengths_need_numpy_alone() -> None:
    code = "import sys, masklet.rle; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "numpy" in loaded
    assert not set(loaded) & {"pycocotools", "torch", "cv2", "grpc", "google", "masklet_server"}


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory that Python and NumPy took at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (b"1" * 16 * 10**6, "more than 128x128 = 16384 pixels"),
        (b"0" * 16 * 10**6, "more runs than 128x128 pixels can have"),
        (b"oooooo0" * 2 * 10**6, "more than 128x128"),
        (b"10" + b"O" * 16 * 10**6, "a length below 0"),
        (b"1" * 100 + b"o" * 16 * 10**6, "cut off at the end, or too long"),
        (b"0" * 100 + b"\xff" * 16 * 10**6, "characters from '0' to 'o'"),
    ],
)
def test_long_counts_of_a_small_mask_take_no_memory(counts: bytes, message: str) -> None:
    def refuse() -> None:
        with pytest.raises(masklet.InvalidArgument, match=message):
            masklet.rle.read_counts(counts, 128, 128)

    assert peak_bytes(refuse) < 8 * 2**20


def test_a_mask_with_very_many_runs_takes_two_masks_of_memory() -> None:
    mask = np.random.default_rng(0).random((1000, 2000)) < 0.5
    counts = masklet.rle.write_counts(masklet.rle.find_runs(mask))
    assert len(counts) > 900_000  # many blocks
    assert masklet.rle.check_counts(counts, 1000, 2000) == len(masklet.rle.find_runs(mask))
    np.testing.assert_array_equal(masklet.rle.paint_counts(counts, 1000, 2000), mask)
    assert masklet.rle.read_counts(counts, 1000, 2000).tolist() == masklet.rle.find_runs(mask).tolist()
    assert peak_bytes(lambda: masklet.rle.check_counts(counts, 1000, 2000)) < 6 * 2**20
    assert peak_bytes(lambda: masklet.rle.paint_counts(counts, 1000, 2000)) < 2 * mask.nbytes + 6 * 2**20
    assert peak_bytes(lambda: masklet.rle.read_counts(counts, 1000, 2000)) < 8 * len(counts) + 6 * 2**20


def test_runs_of_two_characters_cross_the_ends_of_blocks() -> None:
    lengths = np.random.default_rng(1).integers(0, 400, 200_000)
    counts = masklet.rle.write_counts(lengths)
    pixels = int(lengths.sum())
    assert masklet.rle.read_counts(counts, 1, pixels).tolist() == lengths.tolist()
    expected = masklet.rle.paint_runs(lengths, 1, pixels)
    np.testing.assert_array_equal(masklet.rle.paint_counts(counts, 1, pixels), expected)
