"""Memory attention by OpenVINO, in parts that several threads can share, with the keys of memories kept.

The features of a frame attend to seven memories, six of which the frame before attended to as well. So the keys of a
memory are projected and rotated once, when it is new. What depends on its age is added later: keys are linear in it.

Every row of the features goes through a layer for itself, except where the features attend to themselves. So the rows
are shared out among the threads that are idle.

Shapes: one object; L layers, T = h * w, C the model's width, M the width of a memory, N memories, P tokens of pointers.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masklet_server.engine.network.memory_attention import FastMemoryAttention, RearrangedLayer, rotated
from masklet_server.engine.network.openvino.compiled import CompiledModel
from masklet_server.engine.network.tensors import FeatureBatch, Past
from masklet_server.engine.network.workers import Workers

# Temporal encoding of each memory ``[B, N, 1, M]``, pointers' tokens and their position encoding ``[B, P, M]``.
MemoryInputs = Callable[[Past], tuple[Tensor, Tensor, Tensor]]

# The rows of one object's features are shared by so many threads, at most: with fewer rows products are less efficient.
MOST_PARTS = 4
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


class FirstLayer(nn.Module):
    """Some rows of the features through the first layer, after `Start`.

    Args:
        layer: In float32.
    """

    def __init__(self, layer: RearrangedLayer) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, rows: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``[1, R, C]``, their rotation ``[R, C]``, keys ``[1, 1, C, K]``, values ``[1, 1, K, M]`` to ``[1, R, C]``."""
        return _to_memory(self._layer, rows, cos, sin, keys, values)


class LaterLayer(nn.Module):
    """Some rows of the features through another layer.

    Args:
        layer: In float32.
        norm: After the layer, if it is the last one.
    """

    def __init__(self, layer: RearrangedLayer, norm: nn.Module | None) -> None:
        super().__init__()
        self._layer, self._norm = layer, norm

    def forward(self, rows: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, whole: Tensor) -> Tensor:
        """As `FirstLayer`; ``whole`` is what all rows are, ``[1, T, C]``."""
        layer, width = self._layer, cos.shape[-1]
        weight, bias = layer.own.weight, layer.own.bias
        queries = F.linear(layer.norms[0](rows), weight[: 2 * width], bias[: 2 * width])
        others = F.linear(layer.norms[0](whole), weight[2 * width :], bias[2 * width :])
        q, q_turned = torch.split(queries, width, -1)
        k, k_turned, v = torch.split(others, width, -1)
        k = rotated(k, k_turned, layer.cos, layer.sin)
        found = F.scaled_dot_product_attention(rotated(q, q_turned, cos, sin)[:, None], k[:, None], v[:, None])[:, 0]
        attended = _to_memory(layer, rows + layer.own_out(found), cos, sin, keys, values)
        return attended if self._norm is None else self._norm(attended)


def _to_memory(layer: RearrangedLayer, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    width = cos.shape[-1]
    q, q_turned = layer.queries(layer.norms[1](x)).split(width, -1)
    q = rotated(q, q_turned, cos, sin) * width**-0.5
    found = torch.matmul(torch.softmax(torch.matmul(q[:, None], keys), -1), values)[:, 0]
    x = x + layer.cross_out(found)
    widened: Tensor = layer.narrow(layer.wide(layer.norms[2](x)))
    return x + widened


@dataclass(frozen=True, eq=False)
class CompiledLayer:
    """One layer, compiled for any number of rows and keys, and for those numbers that last.

    Attributes:
        any_size: For any numbers.
        lasting: By number of rows and of keys: a quarter quicker.
    """

    any_size: CompiledModel
    lasting: Mapping[tuple[int, int], CompiledModel]

    def __call__(self, rows: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, *whole: Tensor) -> Tensor:
        """As `FirstLayer` or `LaterLayer`."""
        compiled = self.lasting.get((rows.shape[1], values.shape[2]), self.any_size)
        return compiled(rows, cos, sin, keys, values, *whole)[0]


@dataclass(frozen=True, eq=False)
class AttentionParts:
    """The compiled modules of this file, and what they take beside features and memories.

    Attributes:
        start: `Start`.
        keys: `KeysOfMemory`.
        layers: `FirstLayer`, and a `LaterLayer` for each further layer.
        rotations: Cosines and sines of each layer, ``[T, C]`` each.
        of_ages: What ages add to keys, ``[L, A, C, T]``.
        pointer_weight: From pointers' tokens to keys, ``[L * C, M]``.
        pointer_bias: Likewise, ``[L * C, 1]``.
    """

    start: CompiledModel
    keys: CompiledModel
    layers: Sequence[CompiledLayer]
    rotations: Sequence[tuple[Tensor, Tensor]]
    of_ages: Tensor
    pointer_weight: Tensor
    pointer_bias: Tensor


class MemoryAttention:
    """Memory attention of one object, for any number of memories and pointers.

    Args:
        parts: What OpenVINO has compiled.
        inputs: Makes temporal encodings and the tokens of pointers.
        workers: Threads that share the rows.
    """

    def __init__(self, parts: AttentionParts, inputs: MemoryInputs, workers: Workers) -> None:
        self._parts, self._inputs, self._workers = parts, inputs, workers
        self._kept = _KeptKeys(parts.keys)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept keys. Any thread may ask."""
        return self._kept.nbytes

    def start(self, top: Tensor) -> Tensor:
        """`Features.started` of one frame, ``[1, T, C]``, from ``[1, C, h, w]``."""
        return self._parts.start(top)[0]

    def __call__(self, frame: FeatureBatch, past: Past, *, objects: int = 1) -> Tensor:
        """Features ``[1, C, h, w]`` of one object that have attended to its past.

        Args:
            frame: Of one object.
            past: Of one object.
            objects: How many objects attend at the same time; if they are few, several threads share this one.
        """
        x = self.start(frame.top) if frame.started is None else frame.started
        keys, values = self._keys_and_values(past)
        tokens = x.shape[1]
        count = _parts_of(tokens, self._workers.threads // objects)
        height = tokens // count
        for number, layer in enumerate(self._parts.layers):
            whole = [x] if number else []
            cos, sin = self._parts.rotations[number]

            def through(start: int) -> Tensor:
                part = slice(start, start + height)
                return layer(x[:, part], cos[part], sin[part], keys[number], values, *whole)  # noqa: B023 - called here

            rows = self._workers.each(through, range(0, tokens, height))
            x = rows[0] if count == 1 else torch.cat(rows, 1)
        return x.transpose(1, 2).reshape(frame.top.shape)

    def _keys_and_values(self, past: Past) -> tuple[list[Tensor], Tensor]:
        """For each layer ``[1, 1, C, K]``, and ``[1, 1, K, M]``."""
        parts = self._parts
        sources = past.sources[0] if past.sources else [memory.contiguous() for memory in past.memories[0]]
        remembered = [self._kept.of(memory) for memory in sources]
        _, pointers, position = self._inputs(past)
        values = torch.cat([*(tokens for _, tokens in remembered), pointers[0]])
        of_pointers = torch.addmm(parts.pointer_bias, parts.pointer_weight, (pointers + position)[0].T)
        of_pointers = of_pointers.view(len(parts.layers), -1, of_pointers.shape[1])
        ages = past.ages[0].tolist()

        def of_layer(number: int) -> Tensor:
            _, width, tokens = remembered[0][0].shape
            keys = values.new_empty(1, 1, width, len(values))
            for place, ((of_memory, _), age) in enumerate(zip(remembered, ages, strict=True)):
                part = keys[0, 0, :, place * tokens : (place + 1) * tokens]
                torch.add(of_memory[number], parts.of_ages[number, age - 1], out=part)
            keys[0, 0, :, len(remembered) * tokens :] = of_pointers[number]
            return keys

        return self._workers.each(of_layer, range(len(parts.layers))), values[None, None]

    def prepare(self, frame: FeatureBatch, past: Past) -> None:
        """Generate the code for pasts of that size, which would take a part of a second in the middle of a stream."""
        x = self.start(frame.top)
        keys, values = self._keys_and_values(past)
        for number, layer in enumerate(self._parts.layers):
            cos, sin = self._parts.rotations[number]
            for height in shared_rows(x.shape[1], self._workers.threads):
                part = slice(0, height)
                layer.any_size.prepare(x[:, part], cos[part], sin[part], keys[number], values, *([x] if number else []))


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


def shared_rows(rows: int, threads: int) -> set[int]:
    """The numbers of rows that one thread may get of an object, for so many threads."""
    return {rows // _parts_of(rows, idle) for idle in range(1, threads + 1)}


def _parts_of(rows: int, threads: int) -> int:
    """In how many equal parts rows are shared by so many threads."""
    return max(count for count in range(1, max(1, min(threads, MOST_PARTS)) + 1) if rows % count == 0)
