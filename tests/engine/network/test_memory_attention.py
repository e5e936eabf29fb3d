"""The rearranged memory attention is equal to sam2's up to rounding."""

from __future__ import annotations

import pytest
import torch
from sam2.modeling.memory_attention import MemoryAttention
from torch import Tensor

from masklet.errors import InvalidArgument
from masklet_server.engine.network.attention import Kernel, blocked, fused, unshifted
from masklet_server.engine.network.memory_attention import AttentionKernels, ExactMemoryAttention, FastMemoryAttention
from masklet_server.engine.network.placement import Placement
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry

GRID = 4
DOUBLE = Placement(torch.device("cpu"), torch.float64)


def module(model: str) -> MemoryAttention:
    attention: MemoryAttention = build_model(Registry.load().get(model), seed=3, image_size=16 * GRID).memory_attention
    return attention.double()


def inputs(channels: int, batch: int, memories: int, pointers: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    generator = torch.Generator().manual_seed(memories)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = GRID * GRID
    keys = memories * tokens + pointers
    return (
        some(batch, tokens, channels),
        some(1, tokens, channels),
        some(batch, keys, 64),
        some(batch, keys, 64),
        (memories * tokens),
    )


@pytest.mark.parametrize("kernel", [fused, blocked, unshifted])
@pytest.mark.parametrize(("batch", "memories", "pointers"), [(1, 1, 0), (1, 1, 4), (2, 7, 12)])
@pytest.mark.parametrize(("model", "channels"), [("sam2.1-tiny", 256), ("nano", 128)])
def test_both_arrangements_agree(
    model: str, channels: int, kernel: Kernel, batch: int, memories: int, pointers: int
) -> None:
    attention = module(model)
    current, position, memory, memory_position, spatial = inputs(channels, batch, memories, pointers)
    exact = ExactMemoryAttention(attention, position)
    fast = FastMemoryAttention(attention, position, DOUBLE, AttentionKernels(kernel, kernel))

    with torch.inference_mode():
        expected = exact(exact.start(current), memory, memory_position, spatial)
        found = fast(fast.start(current), memory, memory_position, spatial)

    assert (expected.std(dim=1) > 0.01).all(), "nothing to compare"
    # Upstream rotates in float32 for every dtype.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_memory_matters_to_the_comparison() -> None:
    attention = module("nano")
    current, position, memory, memory_position, spatial = inputs(128, 1, 2, 4)
    fast = FastMemoryAttention(attention, position, DOUBLE, AttentionKernels(fused, fused))

    with torch.inference_mode():
        one = fast(fast.start(current), memory, memory_position, spatial)
        other = fast(fast.start(current), memory.roll(1, dims=1), memory_position, spatial)

    assert (one - other).abs().max() > 0.01


def test_another_configuration_is_refused() -> None:
    attention = module("nano")
    attention.layers[0].pos_enc_at_attn = True

    with pytest.raises(InvalidArgument, match="pos_enc_at_attn=True"):
        FastMemoryAttention(attention, torch.zeros(1, GRID * GRID, 128), DOUBLE, AttentionKernels(fused, fused))
