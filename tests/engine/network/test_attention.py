"""All attention kernels give the same results."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from masklet_server.engine.network import attention
from masklet_server.engine.network.attention import blocked, fused, quickest_kernel, unshifted

CPU = torch.device("cpu")


def some(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize(("queries", "keys", "width"), [(7, 40, 16), (512, 64, 16), (513, 64, 4), (1100, 30, 4)])
@pytest.mark.parametrize("kernel", [fused, blocked, unshifted])
def test_attention_is_what_torch_computes(kernel: attention.Kernel, queries: int, keys: int, width: int) -> None:
    q, k, v = some(2, 3, queries, 16), some(2, 3, keys, 16), some(2, 3, keys, width)

    found = kernel(q, k, v)

    expected = torch.softmax(q @ k.mT / 4, dim=-1) @ v
    assert found.shape == (2, 3, queries, width)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("keys_a_block", [1, 7, 8, 100])
def test_keys_come_in_blocks_of_any_size(keys_a_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = some(1, 2, 6, 16), some(1, 2, 40, 16), some(1, 2, 40, 5)
    monkeypatch.setattr(attention, "_SCORES", 6 * keys_a_block)

    found = unshifted(q, k, v)

    torch.testing.assert_close(found, torch.softmax(q @ k.mT / 4, dim=-1) @ v, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("score", [-200.0, -60.0, 60.0, 75.0, 200.0], ids=str)
@pytest.mark.parametrize("where", [slice(0, 5), slice(20, 40), slice(0, 40)], ids=["first", "last", "all"])
def test_scores_beyond_an_exponentials_range_are_left_to_the_other_kernel(
    score: float, where: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_SCORES", 6 * 8)
    q, k, v = torch.ones(1, 1, 6, 4), some(1, 1, 40, 4).float(), some(1, 1, 40, 5).float()
    k[..., where, :] += score / 2  # four products, times a half

    found = unshifted(q, k, v)

    torch.testing.assert_close(found, torch.softmax(q @ k.mT / 2, dim=-1) @ v, rtol=1e-4, atol=1e-5)


def test_it_is_known_when_an_exponential_was_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    def noted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        asked.append(q)
        return blocked(q, k, v)

    monkeypatch.setattr(attention, "blocked", noted)
    q, k, v = (some(1, 1, 6, 4).bfloat16() for _ in range(3))

    assert unshifted(q, k, v).isfinite().all()
    assert not asked
    assert unshifted(100 * q, 100 * k, v).isfinite().all()
    assert len(asked) == 1


@pytest.mark.parametrize("kernel", [blocked, unshifted])
def test_views_of_a_joint_projection_are_taken_as_they_are(kernel: attention.Kernel) -> None:
    q, k, v = some(1, 50, 3, 2, 8).unbind(2)

    found = kernel(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))

    expected = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", [blocked, unshifted])
def test_the_arguments_stay_what_they_were(kernel: attention.Kernel) -> None:
    q, k, v = some(1, 1, 20, 8), some(1, 1, 20, 8), some(1, 1, 20, 4)
    before = [part.clone() for part in (q, k, v)]

    kernel(q, k, v)

    for part, saved in zip((q, k, v), before, strict=True):
        assert torch.equal(part, saved)


@pytest.mark.parametrize("quick", ["fused", "blocked", "unshifted"])
def test_the_quickest_one_is_chosen(quick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    now = 0.0

    def tick() -> float:
        return now + 1e-9 * next(clock)

    def timed(name: str) -> attention.Kernel:
        def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            nonlocal now
            now += 1.0 if name == quick else 2.0
            return v

        return kernel

    kernels = {name: timed(name) for name in ("fused", "blocked", "unshifted")}
    for name, kernel in kernels.items():
        monkeypatch.setattr(attention, name, kernel)
    monkeypatch.setattr("time.perf_counter", tick)

    chosen = quickest_kernel(CPU, torch.bfloat16, queries=4, keys=8, dim=4, width=2)

    assert chosen is kernels[quick]


def test_float32_is_left_to_torch() -> None:
    assert quickest_kernel(CPU, torch.float32, queries=4, keys=8, dim=4, width=2) is fused
