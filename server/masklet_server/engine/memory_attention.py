"""sam2's memory attention: as it is, or with its own weights arranged so that a step costs less, equal up to rounding.

`sam2.modeling.memory_attention` spends most of a step on work that need not be done:

- Its values are the memories, 64 numbers a token, widened to 256 before they are averaged. Averaging comes first here:
  softmax(QK) (M W) = (softmax(QK) M) W, and the rows of the average are an eighth of those of the memory.
- Rotary position encoding goes through complex float32. A rotation is x cos + x' sin, where x' is x with its pairs
  swapped and one sign changed; x' comes out of the same matrix product as x, with rearranged weights.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor, nn

from masklet.errors import InvalidArgument
from masklet_server.engine.attention import Kernel, blocked

# What the functions below take for granted of a layer; true of every configuration that Meta published.
_ASSUMED = {
    "pos_enc_at_attn": False,
    "pos_enc_at_cross_attn_keys": True,
    "pos_enc_at_cross_attn_queries": False,
    "activation_str": "relu",
}


class MemoryAttending(Protocol):
    """What both arrangements are to the network."""

    def __call__(
        self, current: Tensor, position: Tensor, memory: Tensor, memory_position: Tensor, spatial: int
    ) -> Tensor:
        """Features that have attended to themselves and to the memory.

        Args:
            current: ``[B, h * w, C]``.
            position: Its position encoding, ``[1, h * w, C]``.
            memory: ``[B, K, M]``: whole memories, then pointers' tokens.
            memory_position: Its position encoding, ``[B, K, M]``.
            spatial: Tokens at the start of `memory` that are of memories, a multiple of h * w.

        Returns:
            ``[B, h * w, C]``.
        """


class ExactMemoryAttention:
    """sam2's own module, operation by operation: for float32, where masks are to be Meta's to the bit."""

    def __init__(self, module: MemoryAttention) -> None:
        self._module = module

    def __call__(
        self, current: Tensor, position: Tensor, memory: Tensor, memory_position: Tensor, spatial: int
    ) -> Tensor:
        """See `MemoryAttending`."""
        attended: Tensor = self._module(
            curr=current.transpose(0, 1),
            curr_pos=position.expand(len(current), -1, -1).transpose(0, 1),
            memory=memory.transpose(0, 1),
            memory_pos=memory_position.transpose(0, 1),
            num_obj_ptr_tokens=memory.shape[1] - spatial,
        )
        return attended.transpose(0, 1)


class FastMemoryAttention:
    """The same, rearranged.

    Args:
        module: With weights in float32, which are copied.
        grid_size: Side of the feature map; queries and each memory have its square of tokens.
        device: Where to compute.
        dtype: Of weights and activations.
        kernel: Computes the attention to the memory.
        own_kernel: Computes that of the features to themselves.

    Raises:
        InvalidArgument: The configuration asks for something that this does not do.
    """

    def __init__(
        self,
        module: MemoryAttention,
        grid_size: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        kernel: Kernel,
        own_kernel: Kernel,
    ) -> None:
        if not module.pos_enc_at_input or not module.batch_first:
            raise _unsupported("pos_enc_at_input or batch_first being false")
        self._layers = [_Layer(layer, grid_size, device, dtype, kernel, own_kernel) for layer in module.layers]
        self._norm = _norm(module.norm, device, dtype)

    def __call__(
        self, current: Tensor, position: Tensor, memory: Tensor, memory_position: Tensor, spatial: int
    ) -> Tensor:
        """See `MemoryAttending`."""
        x = current + 0.1 * position
        keys = memory + memory_position
        for layer in self._layers:
            x = layer(x, keys, memory, spatial)
        attended: Tensor = self._norm(x)
        return attended


class _Layer:
    def __init__(
        self,
        layer: MemoryAttentionLayer,
        grid_size: int,
        device: torch.device,
        dtype: torch.dtype,
        kernel: Kernel,
        own_kernel: Kernel,
    ) -> None:
        for name, wanted in _ASSUMED.items():
            if (actual := getattr(layer, name)) != wanted:
                raise _unsupported(f"{name}={actual}")
        own, cross = layer.self_attn, layer.cross_attn_image
        for attention in (own, cross):
            if not isinstance(attention, RoPEAttention) or attention.num_heads != 1:
                raise _unsupported("anything but RoPEAttention with one head")
        self._kernel, self._own_kernel = kernel, own_kernel
        self._cos, self._sin = _rotation(own, grid_size, device, dtype)
        self._cos_down, self._sin_down = (part.mT.contiguous()[:, None] for part in (self._cos, self._sin))
        self._own = _linear(
            [own.q_proj, _turned(own.q_proj), own.k_proj, _turned(own.k_proj), own.v_proj], device, dtype
        )
        self._own_out = _linear([own.out_proj], device, dtype)
        self._queries = _linear([cross.q_proj, _turned(cross.q_proj)], device, dtype)
        self._keys = _linear([cross.k_proj, _turned(cross.k_proj)], device, dtype)
        self._cross_out = _linear([_chained(cross.v_proj, cross.out_proj)], device, dtype)
        self._wide, self._narrow = _linear([layer.linear1], device, dtype), _linear([layer.linear2], device, dtype)
        self._norms = [_norm(norm, device, dtype) for norm in (layer.norm1, layer.norm2, layer.norm3)]

    def __call__(self, x: Tensor, keys: Tensor, memory: Tensor, spatial: int) -> Tensor:
        x = x + self._own_out(self._attend_to_itself(self._norms[0](x)))
        x = x + self._cross_out(self._attend_to_memory(self._norms[1](x), keys, memory, spatial))
        widened: Tensor = self._narrow(F.relu(self._wide(self._norms[2](x)), inplace=True))
        return x + widened

    def _attend_to_itself(self, x: Tensor) -> Tensor:
        width = self._cos.shape[-1]
        q, q_turned, k, k_turned, v = self._own(x).split(width, dim=-1)
        return self._attention(self._own_kernel, self._rotated(q, q_turned), self._rotated(k, k_turned), v)

    def _attend_to_memory(self, x: Tensor, keys: Tensor, memory: Tensor, spatial: int) -> Tensor:
        width = self._cos.shape[-1]
        q, q_turned = self._queries(x).split(width, dim=-1)
        k = self._keys_in_columns(keys, spatial) if self._kernel is blocked else self._keys_in_rows(keys, spatial)
        return self._attention(self._kernel, self._rotated(q, q_turned), k, memory)

    def _keys_in_rows(self, keys: Tensor, spatial: int) -> Tensor:
        width = self._cos.shape[-1]
        projected = self._keys(keys)
        # Memories lie on the grid one after the other; pointers have no place on it and are not rotated.
        maps = projected[:, :spatial].unflatten(1, (-1, len(self._cos)))
        rotated = self._rotated(maps[..., :width], maps[..., width:]).flatten(1, 2)
        return torch.cat([rotated, projected[:, spatial:, :width]], dim=1)

    def _keys_in_columns(self, keys: Tensor, spatial: int) -> Tensor:
        """The same, laid out as `blocked` multiplies by them, or oneDNN would turn them for every block of queries."""
        width = self._cos.shape[-1]
        projected = torch.matmul(self._keys.weight, keys.mT).add_(self._keys.bias[:, None])
        maps = projected[..., :spatial].view(*projected.shape[:2], -1, len(self._cos))
        maps[:, :width].mul_(self._cos_down).addcmul_(maps[:, width:], self._sin_down)
        return projected[:, :width].mT

    def _rotated(self, x: Tensor, turned: Tensor) -> Tensor:
        return torch.addcmul(x * self._cos, turned, self._sin)

    @staticmethod
    def _attention(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernel(q[:, None], k[:, None], v[:, None])[:, 0]


def _rotation(
    attention: RoPEAttention, grid_size: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each token and channel, ``[h * w, C]`` (`compute_axial_cis`)."""
    rotation: Tensor = attention.compute_cis(end_x=grid_size, end_y=grid_size)
    return tuple(  # type: ignore[return-value]
        part.repeat_interleave(2, dim=-1).to(device, dtype) for part in (rotation.real, rotation.imag)
    )


def _turned(linear: nn.Linear) -> nn.Linear:
    """A layer that gives (-b, a) where the given one gives the pair (a, b): what a rotation's sine multiplies."""
    turned = nn.Linear(linear.in_features, linear.out_features)
    turned.weight = nn.Parameter(_swap(linear.weight), requires_grad=False)
    turned.bias = nn.Parameter(_swap(linear.bias[:, None])[:, 0], requires_grad=False)
    return turned


def _swap(rows: Tensor) -> Tensor:
    pairs = rows.detach().float().view(-1, 2, rows.shape[1])
    return torch.stack([-pairs[:, 1], pairs[:, 0]], dim=1).flatten(0, 1)


def _chained(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Both layers as one."""
    one = nn.Linear(first.in_features, second.out_features)
    one.weight = nn.Parameter(second.weight.double() @ first.weight.double(), requires_grad=False)
    one.bias = nn.Parameter(second.weight.double() @ first.bias.double() + second.bias.double(), requires_grad=False)
    return one


def _linear(parts: list[nn.Linear], device: torch.device, dtype: torch.dtype) -> nn.Linear:
    """Layers with one input as one layer, their outputs side by side."""
    joined = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
    joined.weight = nn.Parameter(torch.cat([part.weight.detach().double() for part in parts]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([part.bias.detach().double() for part in parts]), requires_grad=False)
    return joined.to(device, dtype)


def _norm(norm: nn.LayerNorm, device: torch.device, dtype: torch.dtype) -> nn.LayerNorm:
    copy = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    copy.load_state_dict(norm.state_dict())
    return copy.to(device, dtype).requires_grad_(requires_grad=False)


def _unsupported(what: str) -> InvalidArgument:
    return InvalidArgument.of("model", f"configurations with {what} in their memory attention are not supported")
