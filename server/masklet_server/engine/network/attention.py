"""Three kernels that compute softmax(q k') v, and the choice of the quickest.

- `fused`: torch's own. It never stores the scores. On a CPU it therefore multiplies in float32 or in small tiles, and
  does not use the matrix units well.
- `blocked`: stores the scores of a block of queries. This takes two plain matrix products, which oneDNN computes at the
  processor's full speed in bfloat16.
- `unshifted`: does not subtract the greatest score of each row, which saves a pass. It then needs the scores of a few
  keys only.

Which kernel is the quickest depends on the processor, so all of them are timed once.
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
    """A function that chooses the kernel for attention of a shape; see `quickest_kernel`."""

    def __call__(self, *, queries: int, keys: int, dim: int, width: int) -> Kernel:
        """Choose the kernel for so many queries and keys, of width `dim`, and values of this width."""


# Queries in a block of `blocked`: 512 x 28,736 x 2 bytes of scores are 28 MB, which fit into a large cache.
_BLOCK = 512
# Scores in a block of `unshifted`: 8 MB in bfloat16, half of which fits into two cores' own caches. With half as many
# and with twice as many it took up to a tenth longer.
_SCORES = 1 << 22
# Sums of exponentials in this range are exact enough: no exponential has overflowed, and not all have vanished.
_LEAST, _GREATEST = 1e-20, 1e30
# Queries with which kernels are timed: a quarter of those of SAM 2.1's memory attention at 1024, or fewer.
_MOST_TIMED_QUERIES = 1024


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's own kernel; narrow values are padded, because it needs them as wide as the keys."""
    width = v.shape[-1]
    if width < k.shape[-1]:
        v = F.pad(v, (0, k.shape[-1] - width))
    return F.scaled_dot_product_attention(q, k, v)[..., :width]


def blocked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two matrix products and a softmax for each block of queries."""
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
    """Exponentials of the scores without a shift, for one block of keys after the other.

    softmax(s) = exp(s) / sum(exp(s)), and subtracting a number from s first does not change it. Subtracting only keeps
    the exponentials in range, which in bfloat16 ends at e^88. If one is too large, `blocked` computes the result.
    exp(s) is computed as 2^(s log2(e)), because torch computes powers of two more quickly.
    """
    width = v.shape[-1]
    out = q.new_empty(*q.shape[:-1], width)
    scaled = q * (q.shape[-1] ** -0.5 * math.log2(math.e))
    # A column of ones among the values sums up the exponentials. Matrix units need at least sixteen columns.
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
    """2^(q k) v, ``float32[Q, V]``; None if column `counter` of it, the sum of 2^(q k), is not exact enough."""
    queries, total = len(q), keys.shape[1]
    columns = min(total, max(1, _SCORES // queries))
    room = q.new_empty(queries * columns)
    sums = q.new_zeros(queries, values.shape[1], dtype=torch.promote_types(q.dtype, torch.float32))
    for start in range(0, total, columns):
        block = keys[:, start : start + columns]
        scores = room[: queries * block.shape[1]].view(queries, -1)
        torch.mm(q, block, out=scores).exp2_()
        sums += torch.mm(scores, values[start : start + columns])
        if start == 0 and not _can_be_trusted(sums[:, counter]):  # the other blocks cannot change that
            return None
    return sums if _can_be_trusted(sums[:, counter]) else None


def _can_be_trusted(sums: Tensor) -> bool:
    """Whether all sums of exponentials are in range; False if there is a NaN."""
    least, greatest = torch.aminmax(sums)
    return bool((least > _LEAST) & (greatest < _GREATEST))


def takes_keys_in_columns(kernel: Kernel) -> bool:
    """Whether a kernel copies keys into columns first, unless they are in columns already."""
    return kernel in (blocked, unshifted)


@torch.inference_mode()
def quickest_kernel(
    device: torch.device, dtype: torch.dtype, *, queries: int, keys: int, dim: int, width: int
) -> Kernel:
    """The quickest kernel for attention of this shape; on a GPU and in float32 always `fused`.

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
