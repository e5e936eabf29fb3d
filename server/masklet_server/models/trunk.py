"""The image trunk of masklet-nano: MobileNetV2 (https://arxiv.org/abs/1801.04381) for SAM 2's image encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from typing_extensions import Self


class _Stage(NamedTuple):
    """One row of table 2 of the paper."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    tapped: bool


_STEM_CHANNELS = 32
_STAGES = (
    _Stage(1, 16, 1, 1, tapped=False),
    _Stage(6, 24, 2, 2, tapped=True),
    _Stage(6, 32, 3, 2, tapped=True),
    _Stage(6, 64, 4, 2, tapped=False),
    _Stage(6, 96, 3, 1, tapped=True),
    _Stage(6, 160, 3, 2, tapped=False),
    _Stage(6, 320, 1, 1, tapped=True),
)


class ConvNorm(nn.Module):
    """A convolution without bias and a batch norm; the padding is `same`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``float[B, in, H, W]`` to ``float[B, out, H / stride, W / stride]``."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """The paper's block: widen, convolve each channel, narrow; then add the input if the shapes are equal."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = ConvNorm(in_channels, hidden, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden)
        self.project = ConvNorm(hidden, out_channels, 1)
        self.activation = nn.ReLU6(inplace=True)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``float[B, in, H, W]`` to ``float[B, out, H / stride, W / stride]``."""
        y: torch.Tensor = x if self.expand is None else self.activation(self.expand(x))
        y = self.activation(self.depthwise(y))
        y = self.project(y)
        return x + y if self.has_shortcut else y


class MobileNetV2Trunk(nn.Module):
    """MobileNetV2 of width 1.0 up to its last block, with features at strides 4, 8, 16 and 32.

    Batch norm is frozen, in training too: clips make batches that are far too small to estimate statistics.

    Attributes:
        channel_list: Channels of the features, coarsest first, as sam2's `FpnNeck` expects.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, _STEM_CHANNELS, 3, stride=2)
        self.activation = nn.ReLU6(inplace=True)
        self.blocks = nn.ModuleList(_blocks())
        ends = torch.tensor([stage.blocks for stage in _STAGES]).cumsum(0) - 1
        self._taps = frozenset(end for stage, end in zip(_STAGES, ends.tolist(), strict=True) if stage.tapped)
        self.channel_list = [stage.channels for stage in reversed(_STAGES) if stage.tapped]
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules except batch norms, which stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def fold_norms(self) -> None:
        """Merge each convolution and its batch norm: equal results up to rounding, for inference only."""
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, ConvNorm):
                    setattr(parent, name, nn.utils.fuse_conv_bn_eval(child.conv, child.norm))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features of pictures at four strides, finest first.

        Args:
            x: ``float[B, 3, S, S]``, normalised with ImageNet's mean and deviation; S is a multiple of 32.

        Returns:
            ``float[B, 24, S/4, S/4]``, ``float[B, 32, S/8, S/8]``, ``float[B, 96, S/16, S/16]`` and
            ``float[B, 320, S/32, S/32]``.
        """
        features = []
        x = self.activation(self.stem(x))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._taps:
                features.append(x)
        return features


def _blocks() -> Iterator[InvertedResidual]:
    channels = _STEM_CHANNELS
    for stage in _STAGES:
        for i in range(stage.blocks):
            stride = stage.stride if i == 0 else 1
            yield InvertedResidual(channels, stage.channels, stride=stride, expansion=stage.expansion)
            channels = stage.channels
