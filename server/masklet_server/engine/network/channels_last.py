"""sam2's convolutions in the layout "channels last", with equal results up to rounding.

In torch's default layout, a linear layer of `sam2.modeling.memory_encoder.CXBlock` copies its weights once for every
row of the picture, and oneDNN rearranges the input and the output of every convolution. With the channels of a pixel
side by side, this is not necessary. `LayerNorm2d`, which is eight operations over whole maps, then becomes one of
torch's functions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn


def lay_out_channels_last(module: nn.Module) -> None:
    """Rearrange the weights of convolutions inside a module, and replace its `LayerNorm2d` layers."""
    for name, child in module.named_children():
        if isinstance(child, LayerNorm2d):
            setattr(module, name, _Norm(child))
        else:
            lay_out_channels_last(child)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


# With fewer channels than this, torch's normalisation is slower than passes over whole maps; the memory encoder begins
# with 4 channels.
_FEW_CHANNELS = 8


class _Norm(nn.Module):
    """A faster `LayerNorm2d` that takes over the weights of another."""

    def __init__(self, original: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = original.weight, original.bias, original.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[B, C, H, W]`` over C."""
        if x.shape[1] < _FEW_CHANNELS:
            return self._over_maps(x.contiguous()).contiguous(memory_format=torch.channels_last)
        normed = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)

    def _over_maps(self, x: Tensor) -> Tensor:
        """Upstream's formula, in passes over whole maps."""
        centred = x - x.mean(dim=1, keepdim=True)
        scale = centred.square().mean(dim=1, keepdim=True).add_(self.eps).rsqrt_()
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        return centred.mul_(scale).mul_(weight).add_(bias)
