"""The encoder and the step of a network by OpenVINO. They take and give what those by torch take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from masklet_server.engine.network.openvino.compiled import CompiledModel
from masklet_server.engine.network.tensors import FeatureBatch, Past
from masklet_server.engine.network.workers import Workers

Part = Callable[..., tuple[Tensor, ...]]


class Attention(Protocol):
    """Attends to the memory of one object; see `attention.MemoryAttention`."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept of living memories."""

    def __call__(self, frame: FeatureBatch, past: Past) -> Tensor:
        """Features ``[1, C, h, w]`` of one object that have attended to its past."""


class Encoder:
    """From pixels to features, each picture for itself: several in one pass are no quicker.

    Args:
        compiled: Of `modules.Encode`.
        workers: Threads that share pictures.

    Attributes:
        start: Computes what all objects of a frame share, ``[1, h * w, C]``, from ``[1, C, h, w]``; None: left to
            the step.
    """

    def __init__(self, compiled: CompiledModel, workers: Workers) -> None:
        self._compiled, self._workers = compiled, workers
        self.start: Callable[[Tensor], Tensor] | None = None

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``uint8[B, S, S, 3]`` RGB to ``[B, C, h, w]``, ``[B, C/8, 4h, 4w]``, ``[B, C/4, 2h, 2w]``, and `start`'s."""
        return _joined(self._workers.each(self._one, torch.split(pixels, 1)))

    def _one(self, picture: Tensor) -> tuple[Tensor, ...]:
        levels = self._compiled(picture)
        return levels if self.start is None else (*levels, self.start(levels[0]))


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

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept of living memories, to be used on later frames."""
        return self.attend.kept_bytes

    def __call__(self, batch: FeatureBatch, past: Past) -> tuple[Tensor, ...]:
        """Logits, predicted IoU, pointers, object scores and memories of B objects."""

        def one(row: tuple[FeatureBatch, Past]) -> tuple[Tensor, ...]:
            frame, its_past = row
            attended = self.attend(frame, its_past)
            logits, iou, pointer, score = self.decode(attended, *frame.fine)
            return logits, iou, pointer, score, self.remember(frame.top, logits, score)[0]

        return _joined(self.workers.each(one, list(zip(batch.one_by_one(), past.one_by_one(), strict=True))))


def _joined(rows: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    if len(rows) == 1:
        return rows[0]
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))
