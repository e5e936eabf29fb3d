"""The encoder and the step of a network by OpenVINO. They take and give what those by torch take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from masklet_server.engine.network.openvino.compiled import CompiledModel, Model
from masklet_server.engine.network.tensors import Past

Attention = Callable[[Tensor, Past], Tensor]
Part = Callable[..., tuple[Tensor, ...]]
# Temporal encoding of each memory ``[B, N, 1, M]``, pointers' tokens and their position encoding ``[B, P, M]``.
MemoryInputs = Callable[[Past], tuple[Tensor, Tensor, Tensor]]


class Encoder:
    """From pixels to features, a picture at a time: several in one pass are no quicker.

    Args:
        compiled: Of `modules.Encode`.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        self._compiled = compiled

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``uint8[B, S, S, 3]`` RGB to ``[B, C, h, w]``, ``[B, C/8, 4h, 4w]`` and ``[B, C/4, 2h, 2w]``."""
        return _joined([self._compiled(one) for one in torch.split(pixels, 1)])


class MemoryAttention:
    """Memory attention of one object, compiled for the sizes of memory that last.

    Torch attends for all other sizes: those of an object's first sixteen frames, and those after several prompts. No
    size is compiled while a stream runs, because the rounding of its masks would change in the middle.

    Args:
        model: Of `modules.Attend`.
        compute: "bf16" or "f32".
        by_torch: Attends otherwise.
        inputs: Makes what `modules.Attend` takes beside features and memories.
    """

    def __init__(self, model: Model, compute: str, by_torch: Attention, inputs: MemoryInputs) -> None:
        self._model, self._compute, self._by_torch, self._inputs = model, compute, by_torch, inputs
        self._compiled: dict[tuple[int, ...], CompiledModel] = {}

    def __call__(self, top: Tensor, past: Past) -> Tensor:
        """Features ``[1, C, h, w]`` of one object that have attended to its past."""
        compiled = self._compiled.get(_size(past))
        if compiled is None:
            return self._by_torch(top, past)
        return compiled(top, past.memories, *self._inputs(past))[0]

    def prepare(self, past: Past) -> None:
        """Compile for pasts of that size."""
        temporal, pointers, position = self._inputs(past)
        shapes = dict(enumerate(map(list, (past.memories.shape, temporal.shape, pointers.shape, position.shape)), 1))
        self._compiled[_size(past)] = self._model.compile(self._compute, shapes)


def _size(past: Past) -> tuple[int, ...]:
    return past.memories.shape[1], past.pointers.shape[1]


@dataclass(frozen=True, eq=False)
class Step:
    """Tracks each object for itself: attention to its memory, mask, new memory. As `Network.step` does by torch.

    Attributes:
        attend: For one object.
        decode: As `modules.Decode`.
        remember: As `modules.Remember`.
    """

    attend: Attention
    decode: Part
    remember: Part

    def __call__(self, top: Tensor, fine0: Tensor, fine1: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Logits, predicted IoU, pointers, object scores and memories of B objects."""
        columns = (torch.split(part, 1) for part in (top, fine0, fine1))
        return _joined([self._one(*one) for one in zip(*columns, Past(*past).one_by_one(), strict=True)])

    def _one(self, top: Tensor, fine0: Tensor, fine1: Tensor, past: Past) -> tuple[Tensor, ...]:
        logits, iou, pointer, score = self.decode(self.attend(top, past), fine0, fine1)
        return logits, iou, pointer, score, self.remember(top, logits, score)[0]


def _joined(rows: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    if len(rows) == 1:
        return rows[0]
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))
