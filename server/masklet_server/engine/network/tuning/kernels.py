"""Attention kernels of a GPU by name, and the choice of one for each shape.

The functions of torch are called by their own names, not through `torch.nn.attention.sdpa_kernel`: that one changes
settings of the whole process, and another device's engine may compute on another thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from masklet_server.engine.network.attention import Kernel, blocked, fused, takes_keys_in_columns
from masklet_server.engine.network.tuning.fastest import Candidate, far_off, fastest

# Results are averages of values, in numbers with 8 bits.
_TOLERANCE = 0.05


def _by(name: str, arguments: Mapping[str, Any]) -> Kernel:
    """One of the functions among which `F.scaled_dot_product_attention` chooses."""

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        width = v.shape[-1]
        if width < k.shape[-1]:
            v = F.pad(v, (0, k.shape[-1] - width))
        function: Callable[..., Any] = getattr(torch.ops.aten, name)
        attended: Tensor = function(q, k, v, **arguments)[0]
        return attended[..., :width]

    return kernel


KERNELS: Mapping[str, Kernel] = {
    "fused": fused,
    "flash": _by("_scaled_dot_product_flash_attention", {}),
    "memory-efficient": _by(
        "_scaled_dot_product_efficient_attention", {"attn_bias": None, "compute_log_sumexp": False}
    ),
    "cudnn": _by("_scaled_dot_product_cudnn_attention", {"attn_bias": None, "compute_log_sumexp": False}),
    "blocked": blocked,
}
"""By name. The first is torch's own choice among the next three; `unshifted` would make the host wait."""


def shape_name(*, queries: int, keys: int, dim: int, width: int) -> str:
    """A shape of attention as text."""
    return f"{queries} x {keys}, {dim} -> {width}"


@dataclass
class KnownKernels:
    """A `KernelChoice` from names that are known.

    Attributes:
        names: By shape; shapes that are missing get "fused".
    """

    names: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *, queries: int, keys: int, dim: int, width: int) -> Kernel:
        """The kernel for this shape; see `KernelChoice`."""
        return KERNELS[self.names.get(shape_name(queries=queries, keys=keys, dim=dim, width=width), "fused")]


class MeasuredKernels:
    """A `KernelChoice` that measures.

    Args:
        device: Where the kernels are timed.
        dtype: Of queries, keys and values. In float32 the kernel is always "fused", so that masks stay Meta's.
        seconds: For each shape.
        kernels: By name, the plain one first.

    Attributes:
        names: Of the kernels that were chosen, by shape.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        seconds: float = 1.0,
        kernels: Mapping[str, Kernel] = KERNELS,
    ) -> None:
        self._device, self._dtype, self._seconds = device, dtype, seconds
        self._kernels = kernels
        self.names: dict[str, str] = {}

    @torch.inference_mode()
    def __call__(self, *, queries: int, keys: int, dim: int, width: int) -> Kernel:
        """The fastest kernel for this shape that gives what the plain one gives; see `KernelChoice`."""
        if self._dtype == torch.float32:
            return fused
        shape = shape_name(queries=queries, keys=keys, dim=dim, width=width)
        if shape not in self.names:
            self.names[shape] = self._measure(shape, queries, keys, dim, width)
        return self._kernels[self.names[shape]]

    def _measure(self, shape: str, queries: int, keys: int, dim: int, width: int) -> str:
        generator = torch.Generator().manual_seed(0)
        q, k, v = (
            torch.randn(1, 1, rows, columns, generator=generator).to(self._device, self._dtype)
            for rows, columns in ((queries, dim), (keys, dim), (keys, width))
        )
        in_columns = k.mT.contiguous().mT

        def run(kernel: Kernel) -> list[Tensor]:
            result = kernel(q, in_columns if takes_keys_in_columns(kernel) else k, v)
            wait_for(self._device)
            return [result]

        candidates = [Candidate(name, functools.partial(run, kernel)) for name, kernel in self._kernels.items()]
        fault = functools.partial(far_off, tolerance=_TOLERANCE)
        return fastest(f"attention {shape}", candidates, fault, seconds=self._seconds).name


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has computed what it was told; a CPU has."""
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.synchronize(device)
