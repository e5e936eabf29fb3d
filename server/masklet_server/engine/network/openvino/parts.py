"""The encoder and the step of a network by OpenVINO. They take and give what those by torch take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from masklet_server.engine.network.openvino.compiled import CompiledModel
from masklet_server.engine.network.tensors import Past
from masklet_server.engine.network.workers import Workers

Attention = Callable[[Tensor, Past], Tensor]
Part = Callable[..., tuple[Tensor, ...]]
# Temporal encoding of each memory ``[B, N, 1, M]``, pointers' tokens and their position encoding ``[B, P, M]``.
MemoryInputs = Callable[[Past], tuple[Tensor, Tensor, Tensor]]


class Encoder:
    """From pixels to features, each picture for itself: several in one pass are no quicker.

    Args:
        compiled: Of `modules.Encode`.
        workers: Threads that share pictures.
    """

    def __init__(self, compiled: CompiledModel, workers: Workers) -> None:
        self._compiled, self._workers = compiled, workers

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``uint8[B, S, S, 3]`` RGB to ``[B, C, h, w]``, ``[B, C/8, 4h, 4w]`` and ``[B, C/4, 2h, 2w]``."""
        return _joined(self._workers.each(self._compiled, torch.split(pixels, 1)))


class MemoryAttention:
    """Memory attention of one object, for any number of memories and pointers.

    Args:
        compiled: Of `modules.Attend`, with lengths of memory that may differ.
        inputs: Makes what `modules.Attend` takes beside features and memories.
    """

    def __init__(self, compiled: CompiledModel, inputs: MemoryInputs) -> None:
        self._compiled, self._inputs = compiled, inputs

    def __call__(self, top: Tensor, past: Past) -> Tensor:
        """Features ``[1, C, h, w]`` of one object that have attended to its past."""
        return self._compiled(top, past.memories, *self._inputs(past))[0]

    def prepare(self, top: Tensor, past: Past) -> None:
        """Generate the code for pasts of that size, which would take a part of a second in the middle of a stream."""
        self._compiled.prepare(top, past.memories, *self._inputs(past))


@dataclass(frozen=True, eq=False)
class Step:
    """Tracks each object for itself: attention to its memory, mask, new memory. As `Network.step` does by torch.

    Attributes:
        attend: For one object.
        decode: As `modules.Decode`.
        remember: As `modules.Remember`.
        workers: Threads that share objects.
    """

    attend: Attention
    decode: Part
    remember: Part
    workers: Workers

    def __call__(self, top: Tensor, fine0: Tensor, fine1: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Logits, predicted IoU, pointers, object scores and memories of B objects."""
        columns = (torch.split(part, 1) for part in (top, fine0, fine1))
        rows = list(zip(*columns, Past(*past).one_by_one(), strict=True))
        return _joined(self.workers.each(lambda row: self._one(*row), rows))

    def _one(self, top: Tensor, fine0: Tensor, fine1: Tensor, past: Past) -> tuple[Tensor, ...]:
        logits, iou, pointer, score = self.decode(self.attend(top, past), fine0, fine1)
        return logits, iou, pointer, score, self.remember(top, logits, score)[0]


def _joined(rows: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    if len(rows) == 1:
        return rows[0]
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))
