"""Layers in one pass give the same as torch's layers in several passes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import MLP
from torch import Tensor, nn

from masklet_server.engine.network import onednn
from masklet_server.engine.network.onednn import Activation, FusedConv, FusedLinear, fuse_linears

ACTIVATIONS = {"none": nn.Identity(), "relu": nn.ReLU(), "gelu": nn.GELU()}


def some(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def layer(inputs: int, outputs: int, dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    made = nn.Linear(inputs, outputs, dtype=dtype).requires_grad_(requires_grad=False)
    made.weight.copy_(some(outputs, inputs, dtype=dtype) / inputs**0.5)
    made.bias.copy_(some(outputs, dtype=dtype))
    return made


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(16,), (5, 16), (2, 3, 4, 16), (0, 16)], ids=str)
@torch.inference_mode()
def test_it_is_the_layer_and_its_activation(activation: Activation, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, original = some(*shape, dtype=dtype), layer(16, 24, dtype)

    found = FusedLinear(original, activation)(x)

    exact = ACTIVATIONS[activation](original.double()(x.double()))
    assert found.shape == (*shape[:-1], 24)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)


@torch.inference_mode()
def test_rows_may_lie_anywhere_in_memory() -> None:
    x, fused = some(3, 16, 7), FusedLinear(layer(16, 24))

    torch.testing.assert_close(fused(x.mT), fused(x.mT.contiguous()), rtol=0, atol=0)


@torch.inference_mode()
def test_it_does_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, fused = some(5, 16), FusedLinear(layer(16, 24), "gelu")
    found = fused(x)
    monkeypatch.setattr(onednn, "_onednn_is_there", lambda: False)

    torch.testing.assert_close(fused(x), found, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("activation", "sigmoid"), [(nn.ReLU, False), (nn.GELU, True), (nn.SiLU, False)])
@torch.inference_mode()
def test_all_layers_within_a_module_are_replaced(activation: type[nn.Module], sigmoid: bool) -> None:
    mlp = MLP(16, 24, 8, 3, activation=activation, sigmoid_output=sigmoid).double()
    module = nn.Sequential(nn.Sequential(layer(16, 16, torch.float64), nn.Tanh()), mlp)
    x = some(5, 16, dtype=torch.float64)
    expected, weights = module(x), {name: weight.data_ptr() for name, weight in module.named_parameters()}

    fuse_linears(module)

    torch.testing.assert_close(module(x), expected)
    assert {weight.data_ptr() for weight in module.parameters()} == set(weights.values())
    assert not any(isinstance(part, nn.Linear) for part in module.modules())


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (3, 2, 1), (3, 1, 16), (3, 2, 16)])
@torch.inference_mode()
def test_it_is_the_convolution_and_relu6(
    kernel: int, stride: int, groups: int, dtype: torch.dtype, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = nn.Conv2d(16, 16, kernel, stride, padding=kernel // 2, groups=groups, dtype=dtype)
    original.weight.copy_(some(*original.weight.shape, dtype=dtype))
    assert original.bias is not None
    original.bias.copy_(some(16, dtype=dtype))
    x = some(2, 16, 9, 12, dtype=dtype).contiguous(memory_format=torch.channels_last)
    if not is_there:
        monkeypatch.setattr(onednn, "_onednn_is_there", lambda: False)

    found = FusedConv(original)(x)

    expected = F.relu6(original(x))
    assert expected.min() == 0
    assert expected.max() == 6
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
