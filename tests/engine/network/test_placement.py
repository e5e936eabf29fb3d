"""Sending pictures and numbers to a device; the memory that only a GPU has is stood in for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from masklet_server.engine.network.placement import Uploads

CPU = torch.device("cpu")
PICTURES = [np.full((2, 3, 3), value, np.uint8) for value in (7, 9)]
ROWS = [[0.0, 1 / 3], [6.0, 1.0]]


class Memory:
    """Stands in for pinned memory: notes what was allocated, and fills it, so that what is not written shows."""

    def __init__(self) -> None:
        self.made: list[Tensor] = []

    def __call__(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        self.made.append(torch.full(tuple(shape), 1, dtype=dtype))
        return self.made[-1]


def test_what_arrives_is_what_was_sent() -> None:
    for uploads in (Uploads(CPU), Uploads(CPU, Memory())):
        assert uploads.pictures(PICTURES).numpy().tolist() == [one.tolist() for one in PICTURES]
        assert torch.equal(uploads.numbers(ROWS), torch.tensor(ROWS))


def test_a_read_only_picture_can_be_sent() -> None:
    """Decoded pixels lie in shared memory that may not be written."""
    picture = PICTURES[0].copy()
    picture.flags.writeable = False
    for uploads in (Uploads(CPU), Uploads(CPU, Memory())):
        assert uploads.pictures([picture]).tolist() == [picture.tolist()]


def test_everything_is_sent_from_the_memory_that_does_not_make_the_host_wait() -> None:
    memory = Memory()
    uploads = Uploads(CPU, memory)
    sent = [uploads.pictures(PICTURES), uploads.numbers(ROWS)]
    assert [one.data_ptr() for one in sent] == [one.data_ptr() for one in memory.made]
    assert [(tuple(one.shape), one.dtype) for one in memory.made] == [
        ((2, 2, 3, 3), torch.uint8),
        ((2, 2), torch.float32),
    ]


def test_a_cpu_needs_no_copy() -> None:
    """Nothing is pinned there: on a machine without a GPU that would fail."""
    assert not Uploads(CPU).pictures(PICTURES).is_pinned()
