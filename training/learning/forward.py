"""A clip through sam2's own modules, frame by frame, so that gradients flow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.learning.prompts import Prompt, PromptKind, draw_corrections
from training.samples.procedural import Generator

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_MOST_LOGIT = 32.0  # of earlier masks that are fed back, as in sam2's predictor


@dataclass(frozen=True)
class FrameOutput:
    """What the mask decoder said of one frame.

    Attributes:
        frame: Which one.
        role: The kind of the first frame's prompt, ``"track"``, or ``"correction"``.
        logits: ``float[B, M, S/4, S/4]``: three masks after a single click or none, else one. As they come from the
            decoder: sam2 puts out the masks of frames that it believes to be empty, which would end their gradients.
        ious: ``float[B, M]``: what it believes these masks' IoU to be.
        presence: ``float[B, 1]``: logit of the object being there.
    """

    frame: int
    role: str
    logits: torch.Tensor
    ious: torch.Tensor
    presence: torch.Tensor


@dataclass(frozen=True)
class ClipPlan:
    """What happens in a clip beside tracking.

    Attributes:
        correct: The frame on which the prediction is corrected by a click, or None.
        lost: Frames whose memories are not kept.
    """

    correct: int | None = None
    lost: frozenset[int] = frozenset()

    @classmethod
    def draw(cls, rng: Generator, frames: int, kind: PromptKind, *, correct: float, memory_dropout: float) -> ClipPlan:
        """A random plan; a given mask needs no correction on the first frame."""
        first = 1 if kind is PromptKind.mask else 0
        chosen = int(rng.integers(first, frames)) if frames > first and rng.random() < correct else None
        dropped = np.flatnonzero(rng.random(frames) < memory_dropout)
        return cls(chosen, frozenset(int(t) for t in dropped if t))


class ClipForward:
    """Clips on their way through the model.

    Args:
        model: The model.
        frames: ``uint8[B, T, S, S, 3]``.
        prompt: For ``B * objects`` objects, those of a clip side by side.
        objects: Of each clip; they share its features.

    Attributes:
        outputs: What has been predicted so far; nothing for a frame whose mask is given.
    """

    def __init__(self, model: SAM2Base, frames: torch.Tensor, prompt: Prompt, objects: int = 1) -> None:
        self._model, self._prompt, self._objects = model, prompt, objects
        self._length = frames.shape[1]
        features = model.forward_image(normalised(frames))
        self._features = [level.unflatten(0, frames.shape[:2]) for level in features["backbone_fpn"]]
        self._positions = [level.unflatten(0, frames.shape[:2]) for level in features["vision_pos_enc"]]
        self._memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        self.outputs: list[FrameOutput] = []

    def run(self, rng: Generator, truth: torch.Tensor, plan: ClipPlan) -> list[FrameOutput]:
        """Predict all frames.

        Args:
            rng: Chooses clicks.
            truth: ``bool[B * objects, T, S, S]`` on the CPU, for corrections.
            plan: What is corrected and what forgotten.
        """
        for t in range(self._length):
            corrected = t == plan.correct
            points = self._given_points() if t == 0 else None
            role = self._prompt.kind.value if t == 0 else "track"
            given = self._prompt.logits if t == 0 else None
            output = self._step(t, points, role=role, earlier=given, remember=not corrected)
            if corrected:
                predicted = (output["pred_masks_high_res"][:, 0] > 0).cpu().numpy()
                clicks = draw_corrections(rng, truth[:, t].numpy(), predicted)
                earlier = output["pred_masks"].detach().clamp(-_MOST_LOGIT, _MOST_LOGIT)
                output = self._step(t, _joined(points, *clicks, earlier.device), role="correction", earlier=earlier)
            if t == 0:
                self._memory["cond_frame_outputs"][t] = output
            elif t not in plan.lost:
                self._memory["non_cond_frame_outputs"][t] = output
        return self.outputs

    def _given_points(self) -> dict[str, torch.Tensor] | None:
        if self._prompt.coords is None or self._prompt.labels is None:
            return None
        return {"point_coords": self._prompt.coords, "point_labels": self._prompt.labels}

    def _step(
        self,
        t: int,
        points: dict[str, torch.Tensor] | None,
        *,
        role: str,
        earlier: torch.Tensor | None = None,
        remember: bool = True,
    ) -> dict[str, Any]:
        used = slice(-self._model.num_feature_levels, None)
        levels, positions = (
            [level[:, t].repeat_interleave(self._objects, 0) for level in every[used]]
            for every in (self._features, self._positions)
        )
        mask = self._prompt.mask if t == 0 else None
        with _decoded(self._model) as said:
            output: dict[str, Any] = self._model.track_step(
                frame_idx=t,
                is_init_cond_frame=t == 0,
                current_vision_feats=[_flat(level) for level in levels],
                current_vision_pos_embeds=[_flat(level) for level in positions],
                feat_sizes=[tuple(level.shape[-2:]) for level in levels],
                point_inputs=points,
                mask_inputs=mask,
                output_dict=self._memory,
                # How old a pointer is counts in parts of this number: that of a long video, whatever the clip's length.
                num_frames=self._model.max_obj_ptrs_in_encoder,
                run_mem_encoder=remember and self._length > 1,
                prev_sam_mask_logits=earlier,
            )
        if mask is None:
            logits, ious, _, presence = said[-1]
            self.outputs.append(FrameOutput(t, role, logits.float(), ious.float(), presence.float()))
        return output


@contextmanager
def _decoded(model: SAM2Base) -> Iterator[list[Any]]:
    """Collects what the mask decoder returns: masks, IoUs, tokens, object scores."""
    said: list[Any] = []
    hook = model.sam_mask_decoder.register_forward_hook(lambda _module, _inputs, output: said.append(output))
    try:
        yield said
    finally:
        hook.remove()


def normalised(frames: torch.Tensor) -> torch.Tensor:
    """``uint8[B, T, S, S, 3]`` to ``float32[B * T, 3, S, S]`` by ImageNet's mean and deviation, channels last."""
    pixels = frames.flatten(0, 1).permute(0, 3, 1, 2).float()
    mean = torch.tensor(_MEAN, device=frames.device).view(1, 3, 1, 1)
    deviation = torch.tensor(_DEVIATION, device=frames.device).view(1, 3, 1, 1)
    return (pixels / 255 - mean) / deviation


def _flat(level: torch.Tensor) -> torch.Tensor:
    """``[B, C, H, W]`` to ``[H * W, B, C]``."""
    return level.flatten(2).permute(2, 0, 1)


def _joined(
    points: dict[str, torch.Tensor] | None, coords: torch.Tensor, labels: torch.Tensor, device: torch.device
) -> dict[str, torch.Tensor]:
    """Earlier points of a frame and a new one."""
    coords, labels = coords.to(device), labels.to(device)
    if points is not None:
        coords = torch.cat([points["point_coords"], coords], dim=1)
        labels = torch.cat([points["point_labels"], labels], dim=1)
    return {"point_coords": coords, "point_labels": labels}
