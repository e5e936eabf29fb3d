"""Two ways to compute softmax(q k') v, and the choice between them.

torch's fused kernel never writes the scores down, which on a CPU costs it the matrix units: there it multiplies in
float32 or in small tiles. Writing down the scores of a few hundred queries at a time makes two plain matrix products of
it, which oneDNN runs at the processor's full speed in bfloat16. Which one is quicker depends on the processor, so both
are timed once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# ``[B, n, Q, D]``, ``[B, n, K, D]`` and ``[B, n, K, V]`` with V <= D to ``[B, n, Q, V]``; D ** -0.5 is the scale.
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


class KernelChoice(Protocol):
    """Chooses a kernel for attention of a shape; see `quickest_kernel`."""

    def __call__(self, *, queries: int, keys: int, dim: int, width: int) -> Kernel:
        """The kernel."""


# Queries whose scores are written down at a time: 512 x 28,736 x 2 bytes is 28 MB, which a large cache still holds.
_BLOCK = 512
# Shapes at which the two are timed: a quarter of the work of SAM 2.1's cross attention at 1024, as far as there is one.
_MOST_TIMED_QUERIES = 1024


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The kernel of torch itself; narrow values are padded, because it wants them as wide as the keys."""
    width = v.shape[-1]
    if width < k.shape[-1]:
        v = F.pad(v, (0, k.shape[-1] - width))
    return F.scaled_dot_product_attention(q, k, v)[..., :width]


def blocked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two matrix products and a softmax for every block of queries."""
    queries, keys = q.shape[-2], k.shape[-2]
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    q = q * q.shape[-1] ** -0.5
    rows = -(-queries // -(-queries // _BLOCK))  # blocks of equal height
    scores = q.new_empty(rows, keys)
    for batch in range(q.shape[0]):
        for head in range(q.shape[1]):
            transposed, values = k[batch, head].mT, v[batch, head]
            for start in range(0, queries, rows):
                block = q[batch, head, start : start + rows]
                here = scores[: len(block)]
                torch.mm(block, transposed, out=here)
                torch.softmax(here, dim=-1, out=here)
                torch.mm(here, values, out=out[batch, head, start : start + rows])
    return out


@torch.inference_mode()
def quickest_kernel(
    device: torch.device, dtype: torch.dtype, *, queries: int, keys: int, dim: int, width: int
) -> Kernel:
    """The quicker of the two for attention of this shape; on a GPU and in float32 always the fused one.

    In float32 there is nothing to gain, and masks are to be Meta's own bit for bit where that is possible. The two take
    turns, and each one's best of three rounds counts, so that a busy moment does not decide.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return fused
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 1, rows, columns, generator=generator).to(dtype)
        for rows, columns in ((min(queries, _MOST_TIMED_QUERIES), dim), (keys, dim), (keys, width))
    )
    kernels: tuple[Kernel, ...] = (fused, blocked)
    best = {kernel: float("inf") for kernel in kernels}
    for _ in range(3):
        for kernel in kernels:
            start = time.perf_counter()
            kernel(q, k, v)
            best[kernel] = min(best[kernel], time.perf_counter() - start)
    return min(kernels, key=best.__getitem__)
