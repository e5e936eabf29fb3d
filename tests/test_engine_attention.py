"""The two ways to attend give the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from masklet_server.engine import attention
from masklet_server.engine.attention import blocked, fused, quickest_kernel

CPU = torch.device("cpu")


def some(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize(("queries", "keys", "width"), [(7, 40, 16), (512, 64, 16), (513, 64, 4), (1100, 30, 4)])
@pytest.mark.parametrize("kernel", [fused, blocked])
def test_attention_is_what_torch_computes(kernel: attention.Kernel, queries: int, keys: int, width: int) -> None:
    q, k, v = some(2, 3, queries, 16), some(2, 3, keys, 16), some(2, 3, keys, width)

    found = kernel(q, k, v)

    expected = torch.softmax(q @ k.mT / 4, dim=-1) @ v
    assert found.shape == (2, 3, queries, width)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_views_of_a_joint_projection_are_taken_as_they_are() -> None:
    q, k, v = some(1, 50, 3, 2, 8).unbind(2)

    found = blocked(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))

    expected = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_the_arguments_stay_what_they_were() -> None:
    q, k, v = some(1, 1, 20, 8), some(1, 1, 20, 8), some(1, 1, 20, 4)
    before = [part.clone() for part in (q, k, v)]

    blocked(q, k, v)

    for part, saved in zip((q, k, v), before, strict=True):
        assert torch.equal(part, saved)


@pytest.mark.parametrize("slow", ["fused", "blocked"])
def test_the_quicker_one_is_chosen(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    now = 0.0

    def tick() -> float:
        return now + 1e-9 * next(clock)

    def timed(name: str) -> attention.Kernel:
        def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            nonlocal now
            now += 2.0 if name == slow else 1.0
            return v

        return kernel

    kernels = {name: timed(name) for name in ("fused", "blocked")}
    for name, kernel in kernels.items():
        monkeypatch.setattr(attention, name, kernel)
    monkeypatch.setattr("time.perf_counter", tick)

    chosen = quickest_kernel(CPU, torch.bfloat16, queries=4, keys=8, dim=4, width=2)

    assert chosen is kernels["blocked" if slow == "fused" else "fused"]


def test_float32_is_left_to_torch() -> None:
    assert quickest_kernel(CPU, torch.float32, queries=4, keys=8, dim=4, width=2) is fused
