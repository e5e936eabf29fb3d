"""Where a model computes, in which numbers, and how what the host has made gets there.

A copy from ordinary memory to a GPU begins when the GPU has done everything that it was given before, and the host
waits for that. A copy from page-locked ("pinned") memory takes its turn on the GPU, and the host goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Allocate = Callable[[Sequence[int], torch.dtype], Tensor]
"""An empty tensor on the host, of a shape and a dtype."""


@dataclass(frozen=True)
class Placement:
    """Device and dtype of a model.

    Attributes:
        device: Where it computes.
        dtype: Of weights and activations, `torch.float32` or `torch.bfloat16`.
    """

    device: torch.device
    dtype: torch.dtype


class Uploads:
    """Sends what the host has made to one device.

    Args:
        device: Where it goes.
        allocate: Makes the host's tensors that are sent. None: pinned memory for a CUDA device; for a CPU, which needs
            no copies, nothing is allocated.
    """

    def __init__(self, device: torch.device, allocate: Allocate | None = None) -> None:
        self._device = device
        self._allocate = allocate
        if allocate is None and device.type == "cuda" and torch.cuda.is_available():
            # torch keeps freed pinned memory, and uses it again once the copies out of it are done.
            self._allocate = _pinned

    def numbers(self, rows: Sequence[Sequence[float]]) -> Tensor:
        """Rows of equally many numbers as ``float32[B, N]`` on the device."""
        made = torch.tensor(rows, dtype=torch.float32)
        if self._allocate is not None:
            made = self._allocate(made.shape, made.dtype).copy_(made)
        return made.to(self._device, non_blocking=True)

    def pictures(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Pictures ``uint8[H, W, 3]`` of one size as ``uint8[B, H, W, 3]`` on the device."""
        if self._allocate is None:
            return torch.from_numpy(np.stack(pictures)).to(self._device, non_blocking=True)
        made = self._allocate((len(pictures), *pictures[0].shape), torch.uint8)
        np.stack(pictures, out=made.numpy())
        return made.to(self._device, non_blocking=True)


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)
