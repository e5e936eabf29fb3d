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
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor, nn

from masklet.errors import InvalidArgument
from masklet_server.engine.network.attention import Kernel, takes_keys_in_columns
from masklet_server.engine.network.onednn import Activation, FusedLinear

# What the functions below take for granted of a layer; true of every configuration that Meta published.
_ASSUMED = {
    "pos_enc_at_attn": False,
    "pos_enc_at_cross_attn_keys": True,
    "pos_enc_at_cross_attn_queries": False,
    "activation_str": "relu",
}


class MemoryAttending(Protocol):
    """What both arrangements are to the network."""

    def start(self, current: Tensor) -> Tensor:
        """The part of the work that is the same for all objects of a frame: ``[B, h * w, C]`` to as many."""

    def __call__(self, started: Tensor, memory: Tensor, memory_position: Tensor, spatial: int) -> Tensor:
        """Features that have attended to themselves and to the memory.

        Args:
            started: What `start` made of them, ``[B, h * w, C]``.
            memory: ``[B, K, M]``: whole memories, then pointers' tokens.
            memory_position: Its position encoding, ``[B, K, M]``.
            spatial: Tokens at the start of `memory` that are of memories, a multiple of h * w.

        Returns:
            ``[B, h * w, C]``.
        """


class ExactMemoryAttention:
    """sam2's own module, operation by operation: for float32, where masks are to be Meta's to the bit.

    Args:
        module: On its device.
        position: Position encoding of the features, ``[1, h * w, C]``.
    """

    def __init__(self, module: MemoryAttention, position: Tensor) -> None:
        self._module = module
        self._position = position

    def start(self, current: Tensor) -> Tensor:
        """See `MemoryAttending`; nothing is done ahead here."""
        return current

    def __call__(self, started: Tensor, memory: Tensor, memory_position: Tensor, spatial: int) -> Tensor:
        """See `MemoryAttending`."""
        attended: Tensor = self._module(
            curr=started.transpose(0, 1),
            curr_pos=self._position.expand(len(started), -1, -1).transpose(0, 1),
            memory=memory.transpose(0, 1),
            memory_pos=memory_position.transpose(0, 1),
            num_obj_ptr_tokens=memory.shape[1] - spatial,
        )
        return attended.transpose(0, 1)


class FastMemoryAttention:
    """The same, rearranged.

    Args:
        module: With weights in float32, which are copied.
        position: Position encoding of the features, ``[1, h * w, C]``.
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
        position: Tensor,
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
        self._in_columns = takes_keys_in_columns(kernel)
        self._position = 0.1 * position.to(device, dtype)

    def start(self, current: Tensor) -> Tensor:
        """See `MemoryAttending`: the first layer's features attend to themselves before they know of any object."""
        return self._layers[0].attend_to_itself(current + self._position)

    def __call__(self, started: Tensor, memory: Tensor, memory_position: Tensor, spatial: int) -> Tensor:
        """See `MemoryAttending`."""
        x = started
        keys = memory + memory_position
        if self._in_columns:
            # With a row of ones, by which the bias of the keys is added in the product, without a pass of its own.
            keys = torch.cat([keys.mT, keys.new_ones(len(keys), 1, keys.shape[1])], dim=1)
        for number, layer in enumerate(self._layers):
            x = layer.attend_to_memory(x if number == 0 else layer.attend_to_itself(x), keys, memory, spatial)
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
        self._keys_and_bias = torch.cat([self._keys.weight, self._keys.bias[:, None]], dim=1)
        self._cross_out = _linear([_chained(cross.v_proj, cross.out_proj)], device, dtype)
        self._wide = _linear([layer.linear1], device, dtype, "relu")
        self._narrow = _linear([layer.linear2], device, dtype)
        self._norms = [_norm(norm, device, dtype) for norm in (layer.norm1, layer.norm2, layer.norm3)]

    def attend_to_itself(self, x: Tensor) -> Tensor:
        """``[B, h * w, C]`` to as many: the first of a layer's three steps."""
        width = self._cos.shape[-1]
        q, q_turned, k, k_turned, v = self._own(self._norms[0](x)).split(width, dim=-1)
        found = self._attention(self._own_kernel, self._rotated(q, q_turned), self._rotated(k, k_turned), v)
        projected: Tensor = self._own_out(found)
        return x + projected

    def attend_to_memory(self, x: Tensor, keys: Tensor, memory: Tensor, spatial: int) -> Tensor:
        """``[B, h * w, C]`` to as many: the other two.

        Args:
            x: From `attend_to_itself`.
            keys: ``[B, K, M]``, or ``[B, M + 1, K]`` with a row of ones for a kernel that takes keys in columns.
            memory: ``[B, K, M]``.
            spatial: How many of the keys are rotated.
        """
        width = self._cos.shape[-1]
        q, q_turned = self._queries(self._norms[1](x)).split(width, dim=-1)
        in_columns = takes_keys_in_columns(self._kernel)
        k = self._keys_in_columns(keys, spatial) if in_columns else self._keys_in_rows(keys, spatial)
        x = x + self._cross_out(self._attention(self._kernel, self._rotated(q, q_turned), k, memory))
        widened: Tensor = self._narrow(self._wide(self._norms[2](x)))
        return x + widened

    def _keys_in_rows(self, keys: Tensor, spatial: int) -> Tensor:
        width = self._cos.shape[-1]
        projected = self._keys(keys)
        # Memories lie on the grid one after the other; pointers have no place on it and are not rotated.
        maps = projected[:, :spatial].unflatten(1, (-1, len(self._cos)))
        rotated = self._rotated(maps[..., :width], maps[..., width:]).flatten(1, 2)
        return torch.cat([rotated, projected[:, spatial:, :width]], dim=1)

    def _keys_in_columns(self, keys: Tensor, spatial: int) -> Tensor:
        """The same, laid out as a product of matrices takes them, or oneDNN would turn them for every block."""
        width = self._cos.shape[-1]
        projected = torch.matmul(self._keys_and_bias, keys)
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


def _linear(
    parts: list[nn.Linear], device: torch.device, dtype: torch.dtype, activation: Activation = "none"
) -> FusedLinear:
    """Layers with one input as one layer, their outputs side by side."""
    joined = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
    joined.weight = nn.Parameter(torch.cat([part.weight.detach().double() for part in parts]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([part.bias.detach().double() for part in parts]), requires_grad=False)
    return FusedLinear(joined.to(device, dtype).requires_grad_(requires_grad=False), activation)


def _norm(norm: nn.LayerNorm, device: torch.device, dtype: torch.dtype) -> nn.LayerNorm:
    copy = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    copy.load_state_dict(norm.state_dict())
    return copy.to(device, dtype).requires_grad_(requires_grad=False)


def _unsupported(what: str) -> InvalidArgument:
    return InvalidArgument.of("model", f"configurations with {what} in their memory attention are not supported")
