from __future__ import annotations

import pytest
import torch
from torch import nn

from masklet_server.models.trunk import MobileNetV2Trunk
from training.learning.folding import FoldedConvNorm, fold_norms


def trunk() -> MobileNetV2Trunk:
    """Of random weights, with statistics that a real one could have."""
    torch.manual_seed(0)
    made = MobileNetV2Trunk()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, 0, 0.3)
    return made


def folded() -> MobileNetV2Trunk:
    made = trunk()
    fold_norms(made)
    return made


def test_the_same_weights_under_the_same_names() -> None:
    plain, quick = trunk().state_dict(), folded().state_dict()
    assert list(plain) == list(quick)
    assert all(torch.equal(plain[name], quick[name]) for name in plain)
    assert any(isinstance(module, FoldedConvNorm) for module in folded().modules())


@pytest.mark.slow
def test_the_same_function_with_the_same_gradients() -> None:
    plain, quick = trunk().double(), folded().double()
    pictures = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for one, other in zip(plain(pictures), quick(pictures), strict=True):
        torch.testing.assert_close(one, other)
    sum(level.square().mean() for level in plain(pictures)).backward()
    sum(level.square().mean() for level in quick(pictures)).backward()
    expected = dict(plain.named_parameters())
    for name, parameter in quick.named_parameters():
        assert parameter.grad is not None
        assert expected[name].grad is not None
        torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)


def test_bfloat16_stays_bfloat16_and_as_near_as_it_was() -> None:
    pictures = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        exact = trunk()(pictures)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain, quick = trunk()(pictures), folded()(pictures)
    for one, other, true in zip(plain, quick, exact, strict=True):
        assert other.dtype == torch.bfloat16
        assert (other - true).abs().mean() < 1.5 * (one - true).abs().mean()
