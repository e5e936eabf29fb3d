"""Inputs and outputs of the network: tensors with names.

Shapes: B objects, C the model's width (256), M the width of a memory (64), h = w the side of the feature map, 4h the
side of low-resolution logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """The image encoder's output for one frame.

    Attributes:
        top: ``[C, h, w]``, input of memory attention and of the mask decoder.
        fine: ``[C/8, 4h, 4w]`` and ``[C/4, 2h, 2w]``, the mask decoder's high-resolution inputs.
        started: ``[h * w, C]``, the part of memory attention that is the same for all objects of the frame; None if the
            step computes it.
    """

    top: Tensor
    fine: tuple[Tensor, Tensor]
    started: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        started = 0 if self.started is None else self.started.nbytes
        return self.top.nbytes + sum(level.nbytes for level in self.fine) + started

    def clone(self) -> Features:
        """A copy that shares no memory with other features."""
        started = None if self.started is None else self.started.clone()
        return Features(self.top.clone(), (self.fine[0].clone(), self.fine[1].clone()), started)

    @staticmethod
    def stack(features: Sequence[Features]) -> FeatureBatch:
        """Features of several frames as one batch."""
        if len(features) == 1:
            only = features[0]
            started = None if only.started is None else only.started[None]
            return FeatureBatch(only.top[None], (only.fine[0][None], only.fine[1][None]), started)
        fine = (torch.stack([f.fine[0] for f in features]), torch.stack([f.fine[1] for f in features]))
        known = [f.started for f in features if f.started is not None]
        started = torch.stack(known) if len(known) == len(features) else None
        return FeatureBatch(torch.stack([f.top for f in features]), fine, started)

    def __repr__(self) -> str:
        return (
            f"Features(top={list(self.top.shape)}, fine={[list(f.shape) for f in self.fine]}, dtype={self.top.dtype})"
        )


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """Features of B frames.

    Attributes:
        top: ``[B, C, h, w]``.
        fine: ``[B, C/8, 4h, 4w]`` and ``[B, C/4, 2h, 2w]``.
        started: ``[B, h * w, C]``; None if it is not known of all frames.
    """

    top: Tensor
    fine: tuple[Tensor, Tensor]
    started: Tensor | None = None

    def one_by_one(self) -> Iterator[FeatureBatch]:
        """Each frame as a batch of its own."""
        for i in range(len(self.top)):
            fine = (self.fine[0][i : i + 1], self.fine[1][i : i + 1])
            yield FeatureBatch(self.top[i : i + 1], fine, None if self.started is None else self.started[i : i + 1])


@dataclass(frozen=True, eq=False)
class Past:
    """What B objects remember; all have equally many memories and pointers.

    Attributes:
        memories: ``bfloat16[B, N, M, h, w]``.
        ages: ``int64[B, N]``: 0 for a conditioning frame, else the number of frames since then.
        pointers: ``[B, P, C]``.
        distances: ``float32[B, P]``: number of frames since then, divided by the greatest distance that counts.
        sources: For each object, the N tensors that its memories were stacked from. A later past has the same tensors
            again, so that what was made of them can be kept. Empty if they are not known.
    """

    memories: Tensor
    ages: Tensor
    pointers: Tensor
    distances: Tensor
    sources: Sequence[Sequence[Tensor]] = ()

    def one_by_one(self) -> Iterator[Past]:
        """The past of each object alone."""
        for i in range(len(self.memories)):
            one = slice(i, i + 1)
            yield Past(self.memories[one], self.ages[one], self.pointers[one], self.distances[one], self.sources[one])


@dataclass(frozen=True, eq=False)
class CandidateBatch:
    """The K masks, one or three, that the mask decoder proposes for each of B objects.

    Attributes:
        logits: ``float32[B, K, 4h, 4w]``.
        predicted_iou: ``float32[B, K]``.
        tokens: ``[B, K, C]``, from which object pointers are made; ``[B, 1, C]`` if all candidates share one.
        object_score: ``float32[B, 1]``, a logit.
    """

    logits: Tensor
    predicted_iou: Tensor
    tokens: Tensor
    object_score: Tensor


@dataclass(frozen=True, eq=False)
class Decoded:
    """The mask decoder's outputs for B objects.

    Attributes:
        logits: ``float32[B, 1, 4h, 4w]``.
        predicted_iou: ``float32[B]``.
        pointer: ``[B, C]``.
        object_score: ``float32[B, 1]``, a logit.
    """

    logits: Tensor
    predicted_iou: Tensor
    pointer: Tensor
    object_score: Tensor
