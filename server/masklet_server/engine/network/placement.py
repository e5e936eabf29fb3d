"""Where a model computes, and in which numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Placement:
    """Device and dtype of a model.

    Attributes:
        device: Where it computes.
        dtype: Of weights and activations, `torch.float32` or `torch.bfloat16`.
    """

    device: torch.device
    dtype: torch.dtype
