"""Convolutions in the layout "channels last" give the same as sam2's modules."""

from __future__ import annotations

import copy

import pytest
import torch
from sam2.modeling.sam2_utils import LayerNorm2d

from masklet_server.engine.network.channels_last import lay_out_channels_last
from masklet_server.engine.network.tensors import Past
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from tests.support.engine import features, small_network


@pytest.mark.parametrize("channels", [4, 7, 8, 32])
def test_norms_of_few_channels_and_of_many(channels: int) -> None:
    original = LayerNorm2d(channels)
    random = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for weight in original.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random))
    ours = torch.nn.Sequential(copy.deepcopy(original))
    lay_out_channels_last(ours)
    maps = torch.randn(2, channels, 5, 3, generator=random).contiguous(memory_format=torch.channels_last)
    before = maps.clone()

    with torch.inference_mode():
        found = ours(maps)

    torch.testing.assert_close(found, original(maps), rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(maps, before)


@pytest.mark.parametrize("name", ["sam2.1-tiny", "nano"])
def test_the_memory_encoder_is_the_same_up_to_rounding(name: str) -> None:
    model = build_model(Registry.load().get(name), image_size=64, seed=None if name == "nano" else 5)
    original, ours = model.memory_encoder, copy.deepcopy(model.memory_encoder)
    lay_out_channels_last(ours)
    assert any(isinstance(module, LayerNorm2d) for module in original.modules())
    assert not any(isinstance(module, LayerNorm2d) for module in ours.modules())
    random = torch.Generator().manual_seed(0)
    top = torch.randn(3, model.hidden_dim, 4, 4, generator=random)
    mask = 20 * torch.rand(3, 1, 64, 64, generator=random) - 10
    with torch.inference_mode():
        theirs = original(top, mask, skip_mask_sigmoid=True)["vision_features"]
        found = ours(top, mask, skip_mask_sigmoid=True)["vision_features"]
    assert found.shape == theirs.shape
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("frames", [(0, 1, 2), (0, 0, 1), (0, 0, 0)], ids=str)
def test_objects_attend_in_a_batch_as_they_do_alone(frames: tuple[int, ...], dtype: torch.dtype) -> None:
    network = small_network(dtype)
    random = torch.Generator().manual_seed(0)
    tops = torch.stack([features(i).top for i in frames]).to(dtype)
    grid = (network.grid_size, network.grid_size)
    past = Past(
        memories=torch.randn(3, 2, network.model.mem_dim, *grid, generator=random).bfloat16(),
        ages=torch.tensor([[2, 1]] * 3),
        pointers=torch.randn(3, 2, network.model.hidden_dim, generator=random),
        distances=torch.rand(3, 2, generator=random),
    )
    with torch.inference_mode():
        together = network.with_memory(tops, past)
        alone = [network.with_memory(tops[i : i + 1], one)[0] for i, one in enumerate(past.one_by_one())]
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together, torch.stack(alone))
    # Later layers round differently if the layout is another one.
    tokens_first = (network.grid_size**2 * tops.shape[1], 1, tops.shape[1] * network.grid_size, tops.shape[1])
    assert together.stride() == tokens_first
    with torch.inference_mode():
        assert network.with_memory(tops[:1], next(past.one_by_one())).stride()[1:] == tokens_first[1:]
