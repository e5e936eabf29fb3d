"""The encoder and the step of a network by OpenVINO. They take and give what those by torch take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from masklet_server.engine.network.openvino.attention import MemoryAttention
from masklet_server.engine.network.openvino.compiled import CompiledModel
from masklet_server.engine.network.tensors import FeatureBatch, Past
from masklet_server.engine.network.workers import Workers

Part = Callable[..., tuple[Tensor, ...]]


class Encoder:
    """From pixels to features, each picture for itself: several in one pass are no quicker.

    Args:
        compiled: Of `modules.Encode`.
        workers: Threads that share pictures.
    """

    def __init__(self, compiled: CompiledModel, workers: Workers) -> None:
        self._compiled, self._workers = compiled, workers

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``uint8[B, S, S, 3]`` RGB to the three levels of features, and `Features.started` if that is compiled in."""
        return _joined(self._workers.each(self._compiled, torch.split(pixels, 1)))


@dataclass(frozen=True, eq=False)
class Step:
    """Tracks each object for itself: attention to its memory, mask, new memory. As `Network.step` does by torch.

    Attributes:
        attend: For one object.
        decode: As `modules.Decode`.
        remember: As `modules.Remember`.
        workers: Threads that share objects.
    """

    attend: MemoryAttention
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
