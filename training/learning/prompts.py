"""Prompts drawn from the truth, as people and programs give them, and clicks where a prediction is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from training.config import PromptMix
from training.samples.procedural import Generator

BoolArray = npt.NDArray[np.bool_]
Point = tuple[float, float]

NOTHING, BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3  # sam2's labels of points
_LOGIT = 10.0  # of a given mask's pixels, and its negative beside it, as sam2 takes masks (`_use_mask_as_output`)


class PromptKind(str, Enum):
    """What is said of the object on the first frame."""

    point = "point"  # one click on it
    points = "points"  # several clicks on it and beside it
    box = "box"  # two corners, not quite right
    mask = "mask"  # not quite right either, at times; taken as it is
    logits = "logits"  # a mask as the start of a better one, as SegmentImage takes it


@dataclass(frozen=True)
class Prompt:
    """One prompt for each clip of a batch, all of a kind.

    Attributes:
        kind: Which.
        coords: ``float32[B, P, 2]``: x and y in pixels of the frame; None with a mask.
        labels: ``int32[B, P]``: sam2's labels; None with a mask.
        mask: ``float32[B, 1, S, S]``, or None.
        logits: ``float32[B, 1, S/4, S/4]``, or None; then there is one point, which says nothing.
    """

    kind: PromptKind
    coords: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    logits: torch.Tensor | None = None

    def to(self, device: torch.device) -> Prompt:
        """The same on another device."""
        parts = (self.coords, self.labels, self.mask, self.logits)
        moved = [None if part is None else part.to(device) for part in parts]
        return Prompt(self.kind, *moved)


def draw_prompt(rng: Generator, truth: BoolArray, mix: PromptMix) -> Prompt:
    """A prompt of a random kind.

    Args:
        rng: Where chance comes from.
        truth: ``bool[B, S, S]`` of first frames, with an object in each.
        mix: How often each kind comes.
    """
    parts = np.array([getattr(mix, kind.value) for kind in PromptKind], float)
    kind = list(PromptKind)[int(rng.choice(len(parts), p=parts / parts.sum()))]
    if kind is PromptKind.mask:
        masks = np.stack([_rough(rng, mask) for mask in truth])
        return Prompt(kind, mask=torch.from_numpy(masks[:, None].astype(np.float32)))
    if kind is PromptKind.logits:
        return _logits_prompt([_rough(rng, mask) for mask in truth])
    if kind is PromptKind.box:
        return points_prompt(kind, [_corners(rng, mask) for mask in truth], [TOP_LEFT, BOTTOM_RIGHT])
    inside = 1 if kind is PromptKind.point else int(rng.integers(1, 5))
    outside = 0 if kind is PromptKind.point else int(rng.integers(0 if inside > 1 else 1, 3))
    clicks = [
        [*(click(rng, mask) for _ in range(inside)), *(_beside(rng, mask) for _ in range(outside))] for mask in truth
    ]
    return points_prompt(kind, clicks, [FOREGROUND] * inside + [BACKGROUND] * outside)


def points_prompt(kind: PromptKind, points: Sequence[Sequence[Point]], labels: Sequence[int]) -> Prompt:
    """A prompt of points with the same labels for each clip."""
    repeated = torch.tensor(labels, dtype=torch.int32).expand(len(points), -1).contiguous()
    return Prompt(kind, torch.tensor(points, dtype=torch.float32), repeated)


def _logits_prompt(masks: Sequence[BoolArray]) -> Prompt:
    """Masks as the mask decoder draws them, and a point that says nothing, which sam2 puts where none is given."""
    size = masks[0].shape[0] // 4
    full = torch.from_numpy(np.stack(masks)[:, None].astype(np.float32)) * 2 * _LOGIT - _LOGIT
    low = F.interpolate(full, (size, size), mode="bilinear", align_corners=False, antialias=True)
    nothing = points_prompt(PromptKind.logits, [[(0.0, 0.0)]] * len(masks), [NOTHING])
    return replace(nothing, logits=low)


def draw_corrections(rng: Generator, truth: BoolArray, prediction: BoolArray) -> tuple[torch.Tensor, torch.Tensor]:
    """A click for each clip where its prediction is wrong; where all is right, one that says so.

    Args:
        rng: Where chance comes from.
        truth: ``bool[B, S, S]``; a frame may have no object.
        prediction: ``bool[B, S, S]``.

    Returns:
        ``float32[B, 1, 2]`` and ``int32[B, 1]``.
    """
    points, labels = [], []
    for true, predicted in zip(truth, prediction, strict=True):
        wrong = true ^ predicted
        if not wrong.any():
            wrong = true if true.any() else ~true
        x, y = click(rng, wrong)
        points.append([(x, y)])
        labels.append([FOREGROUND if true[int(y), int(x)] else BACKGROUND])
    return torch.tensor(points, dtype=torch.float32), torch.tensor(labels, dtype=torch.int32)


def click(rng: Generator, region: BoolArray) -> Point:
    """A point of a region, which is not empty: its most interior one as often as any other."""
    if rng.random() < 0.5:
        padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
        return float(x), float(y)
    place = int(rng.choice(np.flatnonzero(region)))
    return float(place % region.shape[1]), float(place // region.shape[1])


def _beside(rng: Generator, mask: BoolArray) -> Point:
    """A point off the object, near it as often as anywhere; on it if it is everywhere."""
    away = ~mask
    if rng.random() < 0.5:
        reach = 2 * max(2, mask.shape[0] // 12) + 1
        near = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
        away = near & ~mask if (near & ~mask).any() else away
    return click(rng, away if away.any() else mask)


def _corners(rng: Generator, mask: BoolArray) -> list[Point]:
    """A box about the object, each side off by some hundredths of its length, within the frame."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    sides = np.array([left, top, left + width - 1, top + height - 1], float)
    sides += rng.normal(0, 0.05, 4) * np.array([width, height, width, height]) + rng.normal(0, 0.5, 4)
    x0, y0, x1, y1 = np.clip(sides, 0, mask.shape[0] - 1)
    return [(min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))]


def _rough(rng: Generator, mask: BoolArray) -> BoolArray:
    """The mask, one time in four as a brush or a coarse detector would have it."""
    if rng.random() > 0.25:
        return mask
    size = mask.shape[0]
    coarse = cv2.resize(mask.astype(np.float32), (max(8, size // 8),) * 2, interpolation=cv2.INTER_AREA)
    rough = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR) > rng.uniform(0.35, 0.65)
    return np.asarray(rough if rough.any() else mask, np.bool_)
