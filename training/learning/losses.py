"""How wrong a frame's output is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from training.config import Losses
from training.learning.forward import FrameOutput


@dataclass(frozen=True)
class Judgement:
    """Of one frame of a batch of clips.

    Attributes:
        loss: ``float[]``, for its gradient.
        iou: ``float[B]``: of the mask that would be chosen, with the truth.
        present: ``bool[B]``: the object is there; only then does the IoU mean something.
        right: ``bool[B]``: whether it is there was told rightly.
    """

    loss: torch.Tensor
    iou: torch.Tensor
    present: torch.Tensor
    right: torch.Tensor


def judge(output: FrameOutput, truth: torch.Tensor, losses: Losses) -> Judgement:
    """Compare what was said of a frame with ``bool[B, S, S]``.

    Of several masks only the best counts: one click may mean a part or the whole, and masks are to differ.
    """
    present = truth.flatten(1).any(dim=1)
    size = truth.shape[-1] // losses.stride
    target = F.interpolate(truth[:, None].float(), (size, size), mode="area")
    logits = output.logits
    if size != logits.shape[-1]:
        logits = F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
    masks = losses.focal * focal(logits, target, losses.positive) + losses.dice * dice(logits, target)
    best = masks.min(dim=1).values
    ious = hard_iou(logits, target)
    miss = (output.ious - ious).abs().mean(dim=1)
    there = present.float()
    about_masks = ((best + losses.iou * miss) * there).sum() / there.sum().clamp(min=1)
    about_presence = F.binary_cross_entropy_with_logits(output.presence[:, 0], there)
    chosen = output.ious.argmax(dim=1, keepdim=True)
    return Judgement(
        loss=about_masks + losses.presence * about_presence,
        iou=ious.gather(1, chosen)[:, 0],
        present=present,
        right=(output.presence[:, 0] > 0) == present,
    )


def focal(logits: torch.Tensor, target: torch.Tensor, positive: float) -> torch.Tensor:
    """``float[B, M]`` of ``float[B, M, h, w]`` and ``float[B, 1, h, w]``: cross entropy of pixels still in doubt."""
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    doubt = (logits.sigmoid() - target).abs()
    balance = positive * target + (1 - positive) * (1 - target)
    return (doubt.square() * entropy * balance).mean(dim=(-2, -1))


def dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``float[B, M]``: one less the soft overlap."""
    probability = logits.sigmoid()
    shared = (probability * target).sum(dim=(-2, -1))
    total = (probability + target).sum(dim=(-2, -1))
    return 1 - (2 * shared + 1) / (total + 1)


@torch.no_grad()
def hard_iou(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``float[B, M]``: IoU of the masks as they would be given out."""
    masks, true = logits > 0, target > 0.5
    union = (masks | true).sum(dim=(-2, -1))
    return (masks & true).sum(dim=(-2, -1)) / union.clamp(min=1)
