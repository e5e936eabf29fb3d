"""sam2's image encoder with its own weights, without the work whose results are not used.

`sam2.modeling.backbones.image_encoder` computes a position encoding of every level of every picture (67 MB for the
finest one at 1024). Only that of the coarsest level is used, and it is always the same. The encoder also widens the two
finest levels to 256 channels, and `SAM2Base.forward_image` narrows them again. If equality up to rounding is enough,
one convolution does both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, do_pool
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from masklet.errors import InvalidArgument
from masklet_server.engine.network.attention import Kernel, KernelChoice
from masklet_server.engine.network.onednn import FusedConv, fuse_linears
from masklet_server.models.trunk import MobileNetV2Trunk

# Levels of the trunk, finest first: two for the mask decoder's high-resolution inputs, the one that is attended to, and
# one that is only added to the level before it.
_LEVELS = 4


class FastImageEncoder(nn.Module):
    """Replaces `SAM2Base.forward_image`.

    Args:
        model: With weights in float32 on the CPU. Its trunk is taken over and changed; the other weights are shared.
        choose: Chooses the kernel for attention over all tokens.
        exact: Compute exactly as sam2 does, and as nano's trunk was trained, operation by operation.

    Raises:
        InvalidArgument: The configuration needs something that this class does not support.
    """

    def __init__(self, model: SAM2Base, choose: KernelChoice, *, exact: bool) -> None:
        super().__init__()
        encoder: Any = model.image_encoder
        neck: FpnNeck = encoder.neck
        assumed = (
            (len(neck.convs) == _LEVELS and encoder.scalp == 1, "another number of levels than 4, one of them hidden"),
            (neck.fpn_top_down_levels == [2, 3], f"fpn_top_down_levels={neck.fpn_top_down_levels}"),
            (neck.fpn_interp_model == "nearest" and neck.fuse_type == "sum", "an interpolation that is not nearest"),
        )
        for holds, what in assumed:
            if not holds:
                raise InvalidArgument.of("model", f"has {what} in its image encoder's configuration; not supported")
        self.trunk = encoder.trunk
        if isinstance(self.trunk, MobileNetV2Trunk):
            if not exact:
                self._adapt_mobilenet(self.trunk)
        elif isinstance(self.trunk, Hiera):
            self._adapt_hiera(self.trunk, model.image_size, choose)
            if not exact:
                fuse_linears(self.trunk)
        hidden, top, middle, finest = (conv.conv for conv in neck.convs)
        self.hidden, self.top = hidden, top
        self.fine0: nn.Module = nn.Sequential(finest, model.sam_mask_decoder.conv_s0)
        self.fine1: nn.Module = nn.Sequential(middle, model.sam_mask_decoder.conv_s1)
        if not exact:
            self.join_convolutions()

    def join_convolutions(self) -> None:
        """Make one convolution of each two in a row: equal results up to rounding, in less time."""
        for name in ("fine0", "fine1"):
            if isinstance(pair := getattr(self, name), nn.Sequential):
                setattr(self, name, _chained(*pair))

    def _adapt_mobilenet(self, trunk: MobileNetV2Trunk) -> None:
        trunk.fold_norms()
        for part in (trunk, *trunk.blocks):
            for name in ("stem", "expand", "depthwise"):
                if isinstance(conv := getattr(part, name, None), nn.Conv2d):
                    setattr(part, name, FusedConv(conv))
            part.activation = nn.Identity()

    def _adapt_hiera(self, trunk: Any, image_size: int, choose: KernelChoice) -> None:
        side = image_size // 4  # of the finest level
        position: Tensor = trunk._get_pos_embed((side, side))  # noqa: SLF001 - sam2 computes it again for every picture
        self.register_buffer("position", position.detach())
        trunk._get_pos_embed = lambda _size: self.position  # noqa: SLF001
        tokens = (image_size // 16) ** 2  # of the level that has blocks without windows
        for block in trunk.blocks:
            if block.q_stride == (2, 2):
                block.pool = block.attn.q_pool = _HalvingPool()
            if block.window_size == 0:
                dim = block.dim_out // block.attn.num_heads
                kernel = choose(queries=tokens, keys=tokens, dim=dim, width=dim)
                block.attn = _GlobalAttention(block.attn, kernel)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode pictures ``[B, 3, S, S]`` to ``[B, C, h, w]``, ``[B, C/8, 4h, 4w]`` and ``[B, C/4, 2h, 2w]``."""
        finest, middle, coarse, hidden = self.trunk(frames)
        top = self.top(coarse) + F.interpolate(self.hidden(hidden), scale_factor=2.0, mode="nearest")
        return top, self.fine0(finest), self.fine1(middle)


class _GlobalAttention(nn.Module):
    """`MultiScaleAttention` of a block without windows, with another kernel."""

    def __init__(self, original: MultiScaleAttention, kernel: Kernel) -> None:
        super().__init__()
        self.qkv, self.proj, self.q_pool = original.qkv, original.proj, original.q_pool
        self.num_heads = original.num_heads
        self._kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to ``[B, H', W', C']``."""
        batch, height, width, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1).unbind(2)
        if self.q_pool:
            pooled = do_pool(q.reshape(batch, height, width, -1), self.q_pool)
            height, width = pooled.shape[1:3]
            q = pooled.reshape(batch, height * width, self.num_heads, -1)
        attended = self._kernel(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
        return projected


class _HalvingPool(nn.Module):
    """`MaxPool2d` of 2 x 2 pixels; torch's own also writes the place of each maximum, in 8 bytes."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C, H // 2, W // 2]``."""
        height, width = (side // 2 * 2 for side in x.shape[-2:])
        rows = torch.maximum(x[..., :height:2, :width], x[..., 1:height:2, :width])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


def _chained(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Two convolutions with kernel 1 as one convolution, computed in float64."""
    weight = second.weight.flatten(1).double() @ first.weight.flatten(1).double()
    assert first.bias is not None
    assert second.bias is not None
    bias = second.weight.flatten(1).double() @ first.bias.double() + second.bias.double()
    one = nn.Conv2d(first.in_channels, second.out_channels, 1)
    one.weight = nn.Parameter(weight.float()[:, :, None, None], requires_grad=False)
    one.bias = nn.Parameter(bias.float(), requires_grad=False)
    return one
