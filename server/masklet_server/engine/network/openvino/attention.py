"""Memory attention by OpenVINO, with the keys of memories kept.

The features of a frame attend to a few memories, most of which the frame before attended to as well. So the keys of a
memory are projected and rotated once, when it is new. What depends on its age is added later: keys are linear in it.

Shapes: one object; L layers, T = h * w, C the model's width, M the width of a memory, K keys.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from masklet_server.engine.network.memory_attention import FastMemoryAttention, rotated
from masklet_server.engine.network.openvino.compiled import CompiledModel
from masklet_server.engine.network.tensors import FeatureBatch, Past

# Pointers' tokens and their position encoding, ``[B, P, M]`` each.
PointerTokens = Callable[[Past], tuple[Tensor, Tensor]]

# Memories whose keys are kept: those of 32 objects.
KEPT_MEMORIES = 256


class Start(nn.Module):
    """What all objects of a frame share: the first layer's attention of the features to themselves.

    Args:
        attention: In float32, with a kernel that can be traced.
    """

    def __init__(self, attention: FastMemoryAttention) -> None:
        super().__init__()
        self._attention = attention

    def forward(self, top: Tensor) -> Tensor:
        """``[1, C, h, w]`` to ``[1, T, C]``."""
        return self._attention.start(top.flatten(2).transpose(1, 2))


class KeysOfMemory(nn.Module):
    """A memory's keys for all layers, without what its age adds, and its tokens, which are the values.

    Args:
        attention: In float32.
        position: Of a memory's tokens, ``float32[1, T, M]``.
    """

    weight: Tensor
    bias: Tensor
    cos: Tensor
    sin: Tensor
    position: Tensor

    def __init__(self, attention: FastMemoryAttention, position: Tensor) -> None:
        super().__init__()
        layers = attention.layers
        self._width = layers[0].cos.shape[-1]
        self.register_buffer("weight", torch.stack([layer.keys.weight for layer in layers]))
        self.register_buffer("bias", torch.stack([layer.keys.bias for layer in layers])[..., None])
        self.register_buffer("cos", torch.stack([layer.cos.T for layer in layers]).contiguous())
        self.register_buffer("sin", torch.stack([layer.sin.T for layer in layers]).contiguous())
        self.register_buffer("position", position[0].T.contiguous())

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """``[1, M, h, w]`` to keys in columns ``[L, C, T]`` and tokens ``[T, M]``."""
        columns = memory.flatten(2)[0]
        projected = torch.matmul(self.weight, columns + self.position) + self.bias
        keys = rotated(projected[:, : self._width], projected[:, self._width :], self.cos, self.sin)
        return keys, columns.transpose(0, 1)

    def of_ages(self, temporal: Tensor) -> Tensor:
        """What ages add to the keys, ``[L, A, C, T]``, for temporal encodings ``float32[A, M]``."""
        projected = torch.einsum("lcm,am->lac", self.weight, temporal)[..., None]
        width = self._width
        return rotated(projected[:, :, :width], projected[:, :, width:], self.cos[:, None], self.sin[:, None])


class Attend(nn.Module):
    """All layers, after `Start`.

    Args:
        attention: In float32, with a kernel that can be traced.
    """

    def __init__(self, attention: FastMemoryAttention) -> None:
        super().__init__()
        self._layers, self._norm = attention.layers, attention.norm

    def forward(self, started: Tensor, values: Tensor, *keys: Tensor) -> Tensor:
        """``[1, T, C]``, values ``[1, K, M]`` and each layer's keys in columns ``[1, C, K]`` to ``[1, C, h * w]``."""
        x = started
        for number, (layer, columns) in enumerate(zip(self._layers, keys, strict=True)):
            x = layer.attend_to_keys(layer.attend_to_itself(x) if number else x, columns, values)
        attended: Tensor = self._norm(x)
        return attended.transpose(1, 2)


@dataclass(frozen=True, eq=False)
class AttentionParts:
    """The compiled modules of this file, and what they take beside features and memories.

    Attributes:
        start: `Start`.
        keys: `KeysOfMemory`.
        attend: `Attend` for any number of keys.
        attend_lasting: `Attend` for the number of keys that lasts, which is a quarter quicker.
        lasting: That number.
        of_ages: What ages add to keys, ``[L, A, C, T]``.
        pointer_weight: From pointers' tokens to keys, ``[L * C, M]``.
        pointer_bias: Likewise, ``[L * C, 1]``.
    """

    start: CompiledModel
    keys: CompiledModel
    attend: CompiledModel
    attend_lasting: CompiledModel
    lasting: int
    of_ages: Tensor
    pointer_weight: Tensor
    pointer_bias: Tensor


class MemoryAttention:
    """Memory attention of one object, for any number of memories and pointers.

    Args:
        parts: What OpenVINO has compiled.
        pointer_tokens: Makes the tokens of pointers.
    """

    def __init__(self, parts: AttentionParts, pointer_tokens: PointerTokens) -> None:
        self._parts, self._pointer_tokens = parts, pointer_tokens
        self._kept = _KeptKeys(parts.keys)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept keys. Any thread may ask."""
        return self._kept.nbytes

    def start(self, top: Tensor) -> Tensor:
        """`Features.started` of one frame, ``[1, T, C]``, from ``[1, C, h, w]``."""
        return self._parts.start(top)[0]

    def __call__(self, frame: FeatureBatch, past: Past) -> Tensor:
        """Features ``[1, C, h, w]`` of one object that have attended to its past.

        Args:
            frame: Of one object.
            past: Of one object.
        """
        started = self.start(frame.top) if frame.started is None else frame.started
        values, keys = self._values_and_keys(past)
        is_lasting = values.shape[1] == self._parts.lasting
        attend = self._parts.attend_lasting if is_lasting else self._parts.attend
        return attend(started, values, *keys)[0].view(frame.top.shape)

    def _values_and_keys(self, past: Past) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``[1, K, M]``, and for each layer ``[1, C, K]``."""
        parts = self._parts
        sources = past.sources[0] if past.sources else [memory.contiguous() for memory in past.memories[0]]
        remembered = [self._kept.of(memory) for memory in sources]
        pointers, position = self._pointer_tokens(past)
        values = torch.cat([*(tokens for _, tokens in remembered), pointers[0]])
        layers, width, tokens = remembered[0][0].shape
        keys = values.new_empty(layers, width, len(values))
        for place, ((of_memory, _), age) in enumerate(zip(remembered, past.ages[0].tolist(), strict=True)):
            part = keys[:, :, place * tokens : (place + 1) * tokens]
            torch.add(of_memory, parts.of_ages[:, age - 1], out=part)
        of_pointers = torch.addmm(parts.pointer_bias, parts.pointer_weight, (pointers + position)[0].T)
        keys[:, :, len(remembered) * tokens :] = of_pointers.view(layers, width, -1)
        return values[None], keys.unsqueeze(1).unbind()

    def prepare(self, frame: FeatureBatch, past: Past) -> None:
        """Generate the code for pasts of that size, which would take a part of a second in the middle of a stream."""
        values, keys = self._values_and_keys(past)
        if values.shape[1] != self._parts.lasting:
            self._parts.attend.prepare(self.start(frame.top), values, *keys)


class _KeptKeys:
    """The keys and tokens of the memories that were attended to last.

    Args:
        compiled: Of `KeysOfMemory`.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        self._compiled = compiled
        self._kept: OrderedDict[int, tuple[weakref.ref[Tensor], tuple[Tensor, Tensor]]] = OrderedDict()
        # Reentrant, because a memory may end at any moment, on any thread.
        self._lock = threading.RLock()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept. Any thread may ask."""
        with self._lock:
            kept = [both for _, both in self._kept.values()]
        return sum(part.nbytes for both in kept for part in both)

    def of(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys ``[L, C, T]`` and tokens ``[T, M]`` of a memory ``bfloat16[M, h, w]``, which never changes."""
        with self._lock:
            found = self._kept.get(id(memory))
            if found is not None and found[0]() is memory:
                self._kept.move_to_end(id(memory))
                return found[1]
        keys, tokens = self._compiled(memory[None])
        number = id(memory)

        def forget(ended: weakref.ref[Tensor]) -> None:
            with self._lock:
                if (kept := self._kept.get(number)) is not None and kept[0] is ended:
                    del self._kept[number]

        with self._lock:
            self._kept[number] = weakref.ref(memory, forget), (keys, tokens)
            self._kept.move_to_end(number)
            while len(self._kept) > KEPT_MEMORIES:
                self._kept.popitem(last=False)
        return keys, tokens
