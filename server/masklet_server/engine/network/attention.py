"""Three ways to compute softmax(q k') v, and the choice between them.

torch's fused kernel never writes the scores down, which on a CPU costs it the matrix units: there it multiplies in
float32 or in small tiles. Writing down the scores of some queries at a time makes two plain matrix products of it,
which oneDNN runs at the processor's full speed in bfloat16. Where each row's greatest score need not be taken from the
others, that saves a pass, and a few keys' scores at a time will do. Which way is quickest depends on the processor, so
all are timed once.
"""

from __future__ import annotations

import math
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
# Scores that are written down at a time where keys come in blocks: 8 MB in bfloat16, half of which two cores' own
# caches hold. Half as many and twice as many took up to a tenth longer.
_SCORES = 1 << 22
# Sums of exponentials that can be trusted: none of them was too large for its number or, where it matters, too small.
_LEAST, _GREATEST = 1e-20, 1e30
# Shapes at which they are timed: a quarter of the work of SAM 2.1's cross attention at 1024, as far as there is one.
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
            transposed, values = k[batch, head].mT.contiguous(), v[batch, head]
            for start in range(0, queries, rows):
                block = q[batch, head, start : start + rows]
                here = scores[: len(block)]
                torch.mm(block, transposed, out=here)
                torch.softmax(here, dim=-1, out=here)
                torch.mm(here, values, out=out[batch, head, start : start + rows])
    return out


def unshifted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Exponentials of the scores as they are, a block of keys at a time; `blocked` where one of them is too large.

    softmax(s) = exp(s) / sum(exp(s)) whatever is taken from s first; what is taken only keeps numbers in their range,
    which in bfloat16 ends at e^88. exp(s) = 2^(s log2(e)), because torch computes powers of two quicker.
    """
    width = v.shape[-1]
    out = q.new_empty(*q.shape[:-1], width)
    scaled = q * (q.shape[-1] ** -0.5 * math.log2(math.e))
    # A column of ones among the values sums up the exponentials; sixteen columns are what matrix units take at least.
    counted = F.pad(v, (0, 16 - width % 16))
    counted[..., width] = 1
    for batch in range(q.shape[0]):
        for head in range(q.shape[1]):
            transposed = k[batch, head].mT.contiguous()
            sums = _sums_of_exponentials(scaled[batch, head], transposed, counted[batch, head], width)
            if sums is None:
                return blocked(q, k, v)
            torch.div(sums[:, :width], sums[:, width, None], out=out[batch, head])
    return out


def _sums_of_exponentials(q: Tensor, keys: Tensor, values: Tensor, counter: int) -> Tensor | None:
    """2^(q k) v, ``float32[Q, V]``, or None if column `counter` of it, the sum of 2^(q k), is beyond trust."""
    queries, total = len(q), keys.shape[1]
    columns = min(total, max(1, _SCORES // queries))
    room = q.new_empty(queries * columns)
    sums = q.new_zeros(queries, values.shape[1], dtype=torch.promote_types(q.dtype, torch.float32))
    for start in range(0, total, columns):
        block = keys[:, start : start + columns]
        scores = room[: queries * block.shape[1]].view(queries, -1)
        torch.mm(q, block, out=scores).exp2_()
        sums += torch.mm(scores, values[start : start + columns])
        if start == 0 and not _can_be_trusted(sums[:, counter]):  # then the rest need not be computed
            return None
    return sums if _can_be_trusted(sums[:, counter]) else None


def _can_be_trusted(sums: Tensor) -> bool:
    """Whether sums of exponentials are neither too large nor too small; a NaN is neither."""
    least, greatest = torch.aminmax(sums)
    return bool((least > _LEAST) & (greatest < _GREATEST))


def takes_keys_in_columns(kernel: Kernel) -> bool:
    """Whether a kernel lays the keys out in columns of memory first, unless they lie in columns already."""
    return kernel is not fused


@torch.inference_mode()
def quickest_kernel(
    device: torch.device, dtype: torch.dtype, *, queries: int, keys: int, dim: int, width: int
) -> Kernel:
    """The quickest for attention of this shape; on a GPU and in float32 always the fused one.

    In float32 there is nothing to gain, and masks are to be Meta's own bit for bit where that is possible. They take
    turns, and each one's best of three rounds counts, so that a busy moment does not decide.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return fused
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 1, rows, columns, generator=generator).to(dtype)
        for rows, columns in ((min(queries, _MOST_TIMED_QUERIES), dim), (keys, dim), (keys, width))
    )
    columns = k.mT.contiguous().mT
    kernels: tuple[Kernel, ...] = (fused, blocked, unshifted)
    best = {kernel: float("inf") for kernel in kernels}
    for _ in range(3):
        for kernel in kernels:
            laid_out = columns if takes_keys_in_columns(kernel) else k
            start = time.perf_counter()
            kernel(q, laid_out, v)
            best[kernel] = min(best[kernel], time.perf_counter() - start)
    return min(kernels, key=best.__getitem__)
