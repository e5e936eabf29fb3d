from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from masklet_server.engine.serving import mask_runs
from masklet_server.engine.serving.mask_runs import MasksOnDevice, runs_of
from masklet_server.masks.runs import Runs

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, max_side=12))


def by_device(batches: Sequence[npt.NDArray[np.bool_]]) -> list[Runs]:
    """The code for GPUs is tested on a CPU."""
    leaving = MasksOnDevice()
    for masks in batches:
        leaving.add(torch.from_numpy(masks))
    return leaving.download()[0]


def check(found: Sequence[Runs], batches: Sequence[npt.NDArray[np.bool_]]) -> None:
    expected = [Runs.of(mask) for masks in batches for mask in masks]
    for one, other in zip(found, expected, strict=True):
        assert (one.height, one.width) == (other.height, other.width)
        assert np.array_equal(one.lengths, other.lengths)


@given(MASKS)
def test_both_ways_to_the_runs_agree(masks: npt.NDArray[np.bool_]) -> None:
    check(runs_of(torch.from_numpy(masks)), [masks])
    check(by_device([masks]), [masks])


@given(st.lists(MASKS, max_size=5))
def test_masks_of_several_sizes_leave_together(batches: list[npt.NDArray[np.bool_]]) -> None:
    check(by_device(batches), batches)


def test_many_masks_are_searched_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the parts an edge could be lost, or found twice."""
    monkeypatch.setattr(mask_runs, "MAX_WAITING_PIXELS", 30)
    rng = np.random.default_rng(0)
    batches = [rng.random((count, height, 5)) < 0.5 for count, height in [(2, 2), (1, 8), (3, 1), (1, 7), (2, 9)]]
    check(by_device(batches), batches)


def test_numbers_come_along_unchanged() -> None:
    numbers = torch.tensor([0.1, -1024.0, torch.finfo(torch.float32).tiny, 1e30])
    masks = np.array([[[True]], [[False]]])
    leaving = MasksOnDevice()
    leaving.add(torch.from_numpy(masks))
    runs, copied = leaving.download(numbers)
    check(runs, [masks])
    assert copied == numbers.tolist()


def test_nothing_leaves_if_there_is_nothing() -> None:
    assert MasksOnDevice().download() == ([], [])


def test_masks_in_a_row_do_not_run_into_each_other() -> None:
    masks = np.array([[[False, True]], [[True, True]], [[False, False]], [[True, False]]])
    assert [one.lengths.tolist() for one in by_device([masks])] == [[1, 1], [0, 2], [2], [0, 1, 1]]
