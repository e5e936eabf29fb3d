"""Layers to whose outcome a CPU adds bias and activation while it multiplies.

`torch.addmm` in bfloat16 first copies the bias into every row of the outcome, and an activation is another pass over
it: together they take longer than the product of matrices, because SAM 2's layers are many rows of few numbers. oneDNN
does all of it at once, by functions that torch keeps for its own compiler (`torch._inductor.mkldnn_lowerings`). Where
they are not there, and in another dtype, torch's own layers do the same.
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
    """Replace all linear layers within a module, and two of them with a GELU or ReLU between."""
    for name, child in module.named_children():
        if isinstance(child, MLP) and (fused := _fused_mlp(child)) is not None:
            setattr(module, name, fused)
        elif isinstance(child, nn.Linear):
            setattr(module, name, FusedLinear(child))
        else:
            fuse_linears(child)


class FusedLinear(nn.Module):
    """`nn.Linear` with its weights, and what comes after it.

    Args:
        original: With a bias.
        activation: Of what it gives.
    """

    def __init__(self, original: nn.Linear, activation: Activation = "none") -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self._activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        if _suits_onednn(x):
            # The last word is for GELU: its exact form, as torch's own.
            joined: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
                x, self.weight, self.bias, self._activation, [], "none"
            )
            return joined
        activated: Tensor = _ACTIVATIONS[self._activation](F.linear(x, self.weight, self.bias))
        return activated


class FusedConv(nn.Module):
    """A convolution with its weights and bias, and ReLU6 after it.

    Args:
        original: With numbers for padding, not a mode.
    """

    def __init__(self, original: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self._stride, self._dilation, self._groups = original.stride, original.dilation, original.groups
        assert not isinstance(original.padding, str)
        self._padding = original.padding

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in, H, W]`` to ``[B, out, H', W']``."""
        sizes = (self._padding, self._stride, self._dilation, self._groups)
        if _suits_onednn(x):
            joined: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
                x, self.weight, self.bias, *sizes, "hardtanh", [0.0, 6.0], ""
            )
            return joined
        padding, stride, dilation, groups = sizes
        return F.relu6(F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups), inplace=True)


def _fused_mlp(mlp: MLP) -> nn.Module | None:
    """Two layers with an activation between, as one pass each; None where it is another kind."""
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
    """Whether torch was built with oneDNN and this processor computes in bfloat16 by it."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
