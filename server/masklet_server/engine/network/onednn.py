"""Layers that add bias and activation during the matrix product, on a CPU in bfloat16.

`torch.addmm` in bfloat16 first copies the bias into every row of the result, and an activation is another pass over it.
Together they take longer than the matrix product, because SAM 2's layers have many rows of few numbers. oneDNN does all
of it in one pass, with functions that torch keeps for its own compiler (`torch._inductor.mkldnn_lowerings`). Without
these functions, and in other dtypes, torch's own layers compute the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import MLP
from torch import Tensor, nn

Activation = Literal["none", "relu", "gelu"]

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"none": nn.Identity(), "relu": F.relu, "gelu": F.gelu}


def fuse_linears(module: nn.Module) -> None:
    """Replace all linear layers inside a module, and MLPs with GELU or ReLU as a whole."""
    for name, child in module.named_children():
        if isinstance(child, MLP) and (fused := _fused_mlp(child)) is not None:
            setattr(module, name, fused)
        elif isinstance(child, nn.Linear):
            setattr(module, name, FusedLinear(child))
        else:
            fuse_linears(child)


class FusedLinear(nn.Module):
    """A linear layer and the activation after it, with the weights of an `nn.Linear`.

    Args:
        original: A layer with a bias.
        activation: What comes after the layer.
    """

    def __init__(self, original: nn.Linear, activation: Activation = "none") -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self._activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        if _suits_onednn(x):
            # The last argument asks for GELU in its exact form, which is torch's default.
            joined: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
                x, self.weight, self.bias, self._activation, [], "none"
            )
            return joined
        activated: Tensor = _ACTIVATIONS[self._activation](F.linear(x, self.weight, self.bias))
        return activated


class FusedConv(nn.Module):
    """A convolution and ReLU6 after it, with the weights of an `nn.Conv2d`.

    Args:
        original: A convolution with a bias, whose padding is given as numbers.
    """

    def __init__(self, original: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self._stride, self._dilation, self._groups = original.stride, original.dilation, original.groups
        assert not isinstance(original.padding, str)
        self._padding = original.padding

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in, H, W]`` to ``[B, out, H', W']``."""
        sizes = (self._padding, self._stride, self._dilation, self._groups)
        if _suits_onednn(x):
            joined: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
                x, self.weight, self.bias, *sizes, "hardtanh", [0.0, 6.0], ""
            )
            return joined
        padding, stride, dilation, groups = sizes
        return F.relu6(F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups), inplace=True)


def _fused_mlp(mlp: MLP) -> nn.Module | None:
    """An MLP whose layers and activations are one pass each; None if its activation is not supported."""
    activation: Activation
    match mlp.act:
        case nn.GELU(approximate="none"):
            activation = "gelu"
        case nn.ReLU():
            activation = "relu"
        case _:
            return None
    *hidden, last = mlp.layers
    fused = [*(FusedLinear(layer, activation) for layer in hidden), FusedLinear(last)]
    return nn.Sequential(*fused, *([nn.Sigmoid()] if mlp.sigmoid_output else []))


def _suits_onednn(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and _onednn_is_there()


@functools.cache
def _onednn_is_there() -> bool:
    """Whether torch has oneDNN, and oneDNN supports bfloat16 on this processor."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
