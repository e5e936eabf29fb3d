"""The encoder and the step of a network by OpenVINO. They take and give what those by torch take and give."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

import torch
from torch import Tensor

from masklet_server.engine.network.openvino.compiled import CompiledModel, Model
from masklet_server.engine.network.tensors import Past

logger = logging.getLogger(__name__)

# Sizes of a memory for which attention is compiled at a time; each holds its own weights and buffers.
MAX_SIZES = 8
# A new size is compiled when it has been seen so often: an object's first sixteen frames all have sizes of their own.
SEEN_BEFORE = 3

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
    """Memory attention of one object, compiled for each size of memory that comes often.

    Sizes change in an object's first frames and when it is prompted again. Until a size is compiled, in a thread of its
    own, torch attends.

    Args:
        model: Of `modules.Attend`.
        compute: "bf16" or "f32".
        by_torch: What attends otherwise.
        inputs: What `modules.Attend` wants beside features and memories.
    """

    def __init__(self, model: Model, compute: str, by_torch: Attention, inputs: MemoryInputs) -> None:
        self._model, self._compute, self._by_torch, self._inputs = model, compute, by_torch, inputs
        self._compiled: dict[tuple[int, ...], CompiledModel] = {}
        self._seen: Counter[tuple[int, ...]] = Counter()

    def __call__(self, top: Tensor, past: Past) -> Tensor:
        """Features ``[1, C, h, w]`` of one object that have attended to its past."""
        size = (past.memories.shape[1], past.pointers.shape[1])
        compiled = self._compiled.get(size)
        if compiled is None:
            self._note(size, past)
            return self._by_torch(top, past)
        return compiled(top, past.memories, *self._inputs(past))[0]

    def prepare(self, past: Past) -> None:
        """Compile for a past of that size now."""
        temporal, pointers, position = self._inputs(past)
        shapes = dict(enumerate(map(list, (past.memories.shape, temporal.shape, pointers.shape, position.shape)), 1))
        size = (past.memories.shape[1], past.pointers.shape[1])
        self._compiled[size] = self._model.compile(self._compute, shapes)

    def _note(self, size: tuple[int, ...], past: Past) -> None:
        self._seen[size] += 1
        if self._seen[size] == SEEN_BEFORE and len(self._compiled) < MAX_SIZES:
            Thread(target=self._prepare, args=(past,), name="masklet-compile", daemon=True).start()

    def _prepare(self, past: Past) -> None:
        try:
            with torch.inference_mode():
                self.prepare(past)
        except RuntimeError:
            logger.exception("OpenVINO could not compile memory attention; torch goes on computing it")


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
