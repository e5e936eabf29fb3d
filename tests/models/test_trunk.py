from __future__ import annotations

import torch
from torch import nn

from masklet_server.models.trunk import InvertedResidual, MobileNetV2Trunk


def test_features_lie_at_strides_4_to_32() -> None:
    trunk = MobileNetV2Trunk()
    with torch.inference_mode():
        shapes = [list(feature.shape) for feature in trunk(torch.randn(2, 3, 96, 96))]
    assert shapes == [[2, 24, 24, 24], [2, 32, 12, 12], [2, 96, 6, 6], [2, 320, 3, 3]]
    assert trunk.channel_list == [320, 96, 32, 24]


def test_it_is_mobilenet_v2() -> None:
    trunk = MobileNetV2Trunk()
    # The paper's network of width 1.0 has 2,223,872 parameters before its classifier, 412,160 of them in the last 1x1
    # convolution and its norm, which make no feature map.
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 2_223_872 - 320 * 1280 - 2 * 1280
    assert sum(isinstance(module, InvertedResidual) for module in trunk.modules()) == 17


def test_shortcuts_are_where_shapes_allow() -> None:
    shortcuts = [module.has_shortcut for module in MobileNetV2Trunk().modules() if isinstance(module, InvertedResidual)]
    # The first block of every stage changes its shape.
    assert [i for i, has in enumerate(shortcuts) if not has] == [0, 1, 3, 6, 10, 13, 16]


def test_batch_norm_stays_frozen_in_training() -> None:
    trunk = MobileNetV2Trunk().train()
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    trunk(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    after = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert trunk.training
    assert len(before) == 51
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.grad is not None for parameter in trunk.parameters())
