"""sam2's memory attention: as it is, or rearranged so that a step costs less, with equal results up to rounding.

`sam2.modeling.memory_attention` spends most of a step on work that can be saved:

- Its values are the memories, 64 numbers per token, widened to 256 before they are averaged. Here they are averaged
  first: softmax(QK) (M W) = (softmax(QK) M) W, and the average has an eighth of the memory's rows.
- Its rotary position encoding computes in complex float32. A rotation is x cos + x' sin, where x' is x with the numbers
  of each pair swapped and one sign changed. The same matrix product gives x and x', if the weights are rearranged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor, nn

from masklet.errors import InvalidArgument
from masklet_server.engine.network.attention import Kernel, takes_keys_in_columns
from masklet_server.engine.network.onednn import Activation, FusedLinear
from masklet_server.engine.network.placement import Placement

# What the functions below assume about a layer; true of every configuration that Meta published.
_ASSUMED = {
    "pos_enc_at_attn": False,
    "pos_enc_at_cross_attn_keys": True,
    "pos_enc_at_cross_attn_queries": False,
    "activation_str": "relu",
}


@dataclass(frozen=True)
class AttentionKernels:
    """What computes the two attentions of each layer.

    Attributes:
        own: Attention of the frame's features to themselves.
        memory: Attention of the frame's features to the memory.
    """

    own: Kernel
    memory: Kernel


class AnyMemoryAttention(Protocol):
    """The interface of both arrangements."""

    def start(self, current: Tensor) -> Tensor:
        """The part that is the same for all objects of a frame; from and to ``[B, h * w, C]``."""

    def __call__(self, started: Tensor, memory: Tensor, memory_position: Tensor, spatial: int) -> Tensor:
        """Features that have attended to themselves and to the memory.

        Args:
            started: The features after `start`, ``[B, h * w, C]``.
            memory: ``[B, K, M]``: the tokens of whole memories, then those of pointers.
            memory_position: Position encoding of these tokens, ``[B, K, M]``.
            spatial: How many of the tokens belong to whole memories, a multiple of h * w.

        Returns:
            ``[B, h * w, C]``.
        """


class ExactMemoryAttention:
    """sam2's own module, operation by operation: for float32, where masks must be equal to Meta's.

    Args:
        module: On its device.
        position: Position encoding of the features, ``[1, h * w, C]``.
    """

    def __init__(self, module: MemoryAttention, position: Tensor) -> None:
        self._module = module
        self.position = position

    def start(self, current: Tensor) -> Tensor:
        """Return the features as they are; see `AnyMemoryAttention.start`."""
        return current

    def __call__(self, started: Tensor, memory: Tensor, memory_position: Tensor, spatial: int) -> Tensor:
        """Attend to the memory; see `AnyMemoryAttention`."""
        attended: Tensor = self._module(
            curr=started.transpose(0, 1),
            curr_pos=self.position.expand(len(started), -1, -1).transpose(0, 1),
            memory=memory.transpose(0, 1),
            memory_pos=memory_position.transpose(0, 1),
            num_obj_ptr_tokens=memory.shape[1] - spatial,
        )
        return attended.transpose(0, 1)


class FastMemoryAttention:
    """sam2's memory attention with rearranged weights; see the module's text.

    Args:
        module: With weights in float32, which are copied.
        position: Position encoding of the features, ``[1, h * w, C]``; h = w.
        placement: Device and dtype to compute with.
        kernels: What computes the attentions.

    Attributes:
        layers: The layers.
        norm: After the last layer.
        position: What is added to the features, ``[1, h * w, C]``.

    Raises:
        InvalidArgument: The configuration needs something that this class does not support.
    """

    def __init__(
        self, module: MemoryAttention, position: Tensor, placement: Placement, kernels: AttentionKernels
    ) -> None:
        if not module.pos_enc_at_input or not module.batch_first:
            raise _unsupported("pos_enc_at_input or batch_first being false")
        grid_size = math.isqrt(position.shape[1])
        self.layers = [RearrangedLayer(layer, grid_size, placement, kernels) for layer in module.layers]
        self.norm = _norm(module.norm, placement)
        self._in_columns = takes_keys_in_columns(kernels.memory)
        self.position = 0.1 * position.to(placement.device, placement.dtype)

    def start(self, current: Tensor) -> Tensor:
        """Let the first layer's features attend to themselves; see `AnyMemoryAttention.start`."""
        return self.layers[0].attend_to_itself(current + self.position)

    def __call__(self, started: Tensor, memory: Tensor, memory_position: Tensor, spatial: int) -> Tensor:
        """Attend to the memory; see `AnyMemoryAttention`."""
        x = started
        keys = memory + memory_position
        if self._in_columns:
            # A row of ones: so the matrix product adds the bias of the keys, which then needs no pass of its own.
            keys = torch.cat([keys.mT, keys.new_ones(len(keys), 1, keys.shape[1])], dim=1)
        for number, layer in enumerate(self.layers):
            x = layer.attend_to_memory(x if number == 0 else layer.attend_to_itself(x), keys, memory, spatial)
        attended: Tensor = self.norm(x)
        return attended


class RearrangedLayer:
    """`MemoryAttentionLayer` with rearranged weights; queries and each memory have grid_size ** 2 tokens.

    A matrix for queries or keys gives twice the width: the numbers themselves, and what a rotation adds to them times
    the sine.

    Attributes:
        cos: Of the rotation, ``[h * w, C]``.
        sin: Likewise.
        own: Queries, keys and values for the attention of the features to themselves.
        own_out: Of the same attention.
        queries: For the attention to the memory.
        keys: Likewise, of the memory.
        cross_out: Of the same attention; values are the memory itself.
        wide: First layer of the MLP, with its activation.
        narrow: Second layer of the MLP.
        norms: Before the two attentions and the MLP.
    """

    def __init__(
        self, layer: MemoryAttentionLayer, grid_size: int, placement: Placement, kernels: AttentionKernels
    ) -> None:
        for name, wanted in _ASSUMED.items():
            if (actual := getattr(layer, name)) != wanted:
                raise _unsupported(f"{name}={actual}")
        own, cross = layer.self_attn, layer.cross_attn_image
        for attention in (own, cross):
            if not isinstance(attention, RoPEAttention) or attention.num_heads != 1:
                raise _unsupported("anything but RoPEAttention with one head")
        self._kernels = kernels
        self.cos, self.sin = _rotation(own, grid_size, placement)
        self._cos_down, self._sin_down = (part.mT.contiguous()[:, None] for part in (self.cos, self.sin))
        self.own = _linear([own.q_proj, _turned(own.q_proj), own.k_proj, _turned(own.k_proj), own.v_proj], placement)
        self.own_out = _linear([own.out_proj], placement)
        self.queries = _linear([cross.q_proj, _turned(cross.q_proj)], placement)
        self.keys = _linear([cross.k_proj, _turned(cross.k_proj)], placement)
        self._keys_and_bias = torch.cat([self.keys.weight, self.keys.bias[:, None]], dim=1)
        self.cross_out = _linear([_chained(cross.v_proj, cross.out_proj)], placement)
        self.wide = _linear([layer.linear1], placement, "relu")
        self.narrow = _linear([layer.linear2], placement)
        self.norms = [_norm(norm, placement) for norm in (layer.norm1, layer.norm2, layer.norm3)]

    def attend_to_itself(self, x: Tensor) -> Tensor:
        """The first of a layer's three parts; from and to ``[B, h * w, C]``."""
        width = self.cos.shape[-1]
        q, q_turned, k, k_turned, v = self.own(self.norms[0](x)).split(width, dim=-1)
        found = self._attention(self._kernels.own, self._rotated(q, q_turned), self._rotated(k, k_turned), v)
        projected: Tensor = self.own_out(found)
        return x + projected

    def attend_to_memory(self, x: Tensor, keys: Tensor, memory: Tensor, spatial: int) -> Tensor:
        """The other two parts of a layer; from and to ``[B, h * w, C]``.

        Args:
            x: From `attend_to_itself`.
            keys: ``[B, K, M]``, or ``[B, M + 1, K]`` with a row of ones for a kernel that takes keys in columns.
            memory: ``[B, K, M]``.
            spatial: How many of the keys are rotated.
        """
        width = self.cos.shape[-1]
        q, q_turned = self.queries(self.norms[1](x)).split(width, dim=-1)
        in_columns = takes_keys_in_columns(self._kernels.memory)
        k = self._keys_in_columns(keys, spatial) if in_columns else self._keys_in_rows(keys, spatial)
        return self._with_found(x, self._attention(self._kernels.memory, self._rotated(q, q_turned), k, memory))

    def attend_to_keys(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """As `attend_to_memory`, with keys that are projected and rotated already, and by plain products.

        Args:
            x: From `attend_to_itself`, ``[B, h * w, C]``.
            keys: In columns, ``[B, C, K]``.
            values: ``[B, K, M]``.
        """
        q, q_turned = self.queries(self.norms[1](x)).split(self.cos.shape[-1], dim=-1)
        scores = torch.matmul(self._rotated(q, q_turned) * q.shape[-1] ** -0.5, keys)
        return self._with_found(x, torch.matmul(torch.softmax(scores, dim=-1), values))

    def _with_found(self, x: Tensor, found: Tensor) -> Tensor:
        """The features with what they have found in the memory, ``[B, h * w, M]``, and through the MLP."""
        x = x + self.cross_out(found)
        widened: Tensor = self.narrow(self.wide(self.norms[2](x)))
        return x + widened

    def _keys_in_rows(self, keys: Tensor, spatial: int) -> Tensor:
        width = self.cos.shape[-1]
        projected = self.keys(keys)
        # The tokens of a memory have places on the grid. Pointers have none, so they are not rotated.
        maps = projected[:, :spatial].unflatten(1, (-1, len(self.cos)))
        rotated = self._rotated(maps[..., :width], maps[..., width:]).flatten(1, 2)
        return torch.cat([rotated, projected[:, spatial:, :width]], dim=1)

    def _keys_in_columns(self, keys: Tensor, spatial: int) -> Tensor:
        """Keys laid out as a matrix product reads them; otherwise oneDNN would rearrange them for every block."""
        width = self.cos.shape[-1]
        projected = torch.matmul(self._keys_and_bias, keys)
        maps = projected[..., :spatial].view(*projected.shape[:2], -1, len(self.cos))
        maps[:, :width].mul_(self._cos_down).addcmul_(maps[:, width:], self._sin_down)
        return projected[:, :width].mT

    def _rotated(self, x: Tensor, turned: Tensor) -> Tensor:
        return rotated(x, turned, self.cos, self.sin)

    @staticmethod
    def _attention(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernel(q[:, None], k[:, None], v[:, None])[:, 0]


def rotated(x: Tensor, turned: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position encoding: of pairs of numbers (a, b), and the same turned to (-b, a)."""
    return torch.addcmul(x * cos, turned, sin)


def _rotation(attention: RoPEAttention, grid_size: int, placement: Placement) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each token and channel, ``[h * w, C]`` (`compute_axial_cis`)."""
    rotation: Tensor = attention.compute_cis(end_x=grid_size, end_y=grid_size)
    cos, sin = (part.repeat_interleave(2, dim=-1) for part in (rotation.real, rotation.imag))
    return cos.to(placement.device, placement.dtype), sin.to(placement.device, placement.dtype)


def _turned(linear: nn.Linear) -> nn.Linear:
    """A layer that gives (-b, a) where the given layer gives the pair (a, b): the factor of a rotation's sine."""
    turned = nn.Linear(linear.in_features, linear.out_features)
    turned.weight = nn.Parameter(_swap(linear.weight), requires_grad=False)
    turned.bias = nn.Parameter(_swap(linear.bias[:, None])[:, 0], requires_grad=False)
    return turned


def _swap(rows: Tensor) -> Tensor:
    pairs = rows.detach().float().view(-1, 2, rows.shape[1])
    return torch.stack([-pairs[:, 1], pairs[:, 0]], dim=1).flatten(0, 1)


def _chained(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Both layers as one layer, computed in float64."""
    one = nn.Linear(first.in_features, second.out_features)
    one.weight = nn.Parameter(second.weight.double() @ first.weight.double(), requires_grad=False)
    one.bias = nn.Parameter(second.weight.double() @ first.bias.double() + second.bias.double(), requires_grad=False)
    return one


def _linear(parts: list[nn.Linear], placement: Placement, activation: Activation = "none") -> FusedLinear:
    """Layers with the same input as one layer, with their outputs side by side."""
    joined = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
    joined.weight = nn.Parameter(torch.cat([part.weight.detach().double() for part in parts]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([part.bias.detach().double() for part in parts]), requires_grad=False)
    return FusedLinear(joined.to(placement.device, placement.dtype).requires_grad_(requires_grad=False), activation)


def _norm(norm: nn.LayerNorm, placement: Placement) -> nn.LayerNorm:
    copy = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    copy.load_state_dict(norm.state_dict())
    return copy.to(placement.device, placement.dtype).requires_grad_(requires_grad=False)


def _unsupported(what: str) -> InvalidArgument:
    return InvalidArgument.of("model", f"configurations with {what} in their memory attention are not supported")
