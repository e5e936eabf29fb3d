from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp

from masklet_server.engine.serving.mask_runs import runs_of, runs_on_device
from masklet_server.masks.runs import Runs

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, max_side=12))


@given(MASKS)
def test_both_ways_to_the_runs_agree(masks: npt.NDArray[np.bool_]) -> None:
    """The code for GPUs is tested on a CPU."""
    expected = [Runs.of(mask) for mask in masks]
    for found in (runs_of(torch.from_numpy(masks)), runs_on_device(torch.from_numpy(masks))):
        assert [(one.height, one.width) for one in found] == [masks.shape[1:]] * len(masks)
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one.lengths, other.lengths)


def test_masks_in_a_row_do_not_run_into_each_other() -> None:
    masks = torch.tensor([[[False, True]], [[True, True]], [[False, False]], [[True, False]]])
    found = [one.lengths.tolist() for one in runs_on_device(masks)]
    assert found == [[1, 1], [0, 2], [2], [0, 1, 1]]
