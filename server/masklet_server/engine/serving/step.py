"""The step: prompting and tracking one object on one frame; steps with equally long memories share a batch.

Follows `SAM2VideoPredictor.add_new_points_or_box`, `add_new_mask`, `propagate_in_video_preflight` and
`propagate_in_video`; `tests/parity` compares the results with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from masklet.prompts import Prompt
from masklet_server.engine.memory.object_memory import FrameMemory, ObjectMemory, PromptedFrame
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.network.mask_input import square_mask, too_small
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Decoded, Features, Past
from masklet_server.engine.serving.policy_step import step_by_policy

# Logits that go back into the decoder are clamped, "to avoid rare numerical issues"
# (`SAM2VideoPredictor.add_new_points_or_box`).
FEEDBACK_LIMIT = 32.0


@dataclass(frozen=True, eq=False)
class Step:
    """One object on one frame.

    Attributes:
        memory: The object's memory; tracking advances it by one frame.
        features: What the image encoder made of the frame.
        frame_index: For a `MemoryBank`, the frame after the last tracked one; for a `History`, any frame.
        clip_length: Frames in the clip if fewer than 16, else None.
        reverse: Time runs backward: the past is what was found on the frames after this one.
    """

    memory: ObjectMemory
    features: Features
    frame_index: int
    clip_length: int | None = None
    reverse: bool = False


@torch.inference_mode()
def apply_prompt(network: Network, step: Step, prompt: Prompt, *, height: int, width: int) -> FrameMemory:
    """Prompt an object on a frame that is not tracked yet, or that lies in the correction window.

    Args:
        network: The model.
        step: Object and frame.
        prompt: Its coordinates are pixels of the video as shown, already checked against its size.
        height: Rows of the video as shown.
        width: Columns of the video as shown.

    Returns:
        The outcome on that frame, with logits.

    Raises:
        InvalidArgument: The frame lies outside the correction window, or the mask is too small.
        ResourceExhausted: The object has too many conditioning frames.
    """
    memory, index = step.memory, step.frame_index
    is_conditioning = not memory.was_tracked(index)
    if not is_conditioning:
        memory.check_correctable(index)
        step = replace(step, reverse=memory.was_tracked_backward(index))
    if prompt.mask is not None:
        memory.clicks.pop(index, None)
        decoded = network.decoder.decode_mask(Features.stack([step.features]), _model_mask(network, prompt.mask))
        shown = F.interpolate(decoded.logits, size=(height, width), mode="bilinear", align_corners=False)
        if not (shown > 0).any():
            raise too_small()
    else:
        points = network.decoder.model_points(prompt, height=height, width=width)
        if prompt.keep_old_points and (old := memory.clicks.get(index)) is not None:
            points = (torch.cat([old[0], points[0]]), torch.cat([old[1], points[1]]))
        memory.clicks[index] = points
        decoded = _decode_points(network, step, points, is_conditioning=is_conditioning)
    outcome = FrameMemory(
        pointer=decoded.pointer[0],
        object_score=decoded.object_score[0],
        predicted_iou=decoded.predicted_iou[0],
        logits=network.fill_holes(decoded.logits)[0],
    )
    memory.add_prompted(index, PromptedFrame(outcome, step.features.top, is_conditioning))
    return outcome


@torch.inference_mode()
def track(network: Network, steps: Sequence[Step], *, max_batch: int = 16) -> list[FrameMemory]:
    """Track each object on its frame and remember the outcome; each memory may occur once only.

    Returns:
        The outcome of each step, in order, with logits even where the memory itself does not keep them.

    Raises:
        FailedPrecondition: A frame does not follow the last one of a memory bank, or an object has no prompt.
    """
    for step in steps:
        step.memory.check_next(step.frame_index, reverse=step.reverse)
    for step in steps:
        consolidate_prompts(network, step.memory)
    found: dict[int, FrameMemory] = {}
    groups: dict[tuple[MemoryPolicy, int, int], list[int]] = {}
    for i, step in enumerate(steps):
        if (memory := step.memory.conditioning_memory(step.frame_index)) is not None:
            found[i] = memory
            continue
        lengths = (len(_memories(step)), len(_pointers(network, step)))
        groups.setdefault((step.memory.memory_policy, *lengths), []).append(i)
    for members in groups.values():
        for start in range(0, len(members), max_batch):
            batch = members[start : start + max_batch]
            for i, memory in zip(batch, _track_batch(network, [steps[i] for i in batch]), strict=True):
                steps[i].memory.remember(steps[i].frame_index, memory)
                found[i] = memory
    for step in steps:
        step.memory.advance(step.frame_index, reverse=step.reverse)
    return [found[i] for i in range(len(steps))]


def _track_batch(network: Network, steps: Sequence[Step]) -> list[FrameMemory]:
    """One pass for steps with the same policy and equally many memories and pointers."""
    batch, past = Features.stack([step.features for step in steps]), _past(network, steps)
    choosing = [(step.memory.policy, step.frame_index) for step in steps if step.memory.policy is not None]
    decoded, memories = step_by_policy(network, batch, past, choosing) if choosing else network.step(batch, past)
    shown = network.fill_holes(decoded.logits)
    kept = zip(
        *map(_rows, (decoded.pointer, decoded.object_score, decoded.predicted_iou, memories, shown)), strict=True
    )
    return [FrameMemory(*parts) for parts in kept]


def _rows(batch: Tensor) -> Sequence[Tensor]:
    """A copy of each row: a view would keep the whole batch in memory for as long as one of its objects is remembered.

    One operation for all rows, unless it would change the layout, and with it how later layers round.
    """
    if batch.is_contiguous():
        rows: Any = torch.unbind_copy(batch)  # type: ignore[func-returns-value] # so says torch's stub
        return tuple(rows)
    return [row.clone() for row in batch.unbind()]


def _past(network: Network, steps: Sequence[Step]) -> Past:
    """What the memories of the steps hold for their frames."""
    memories = [_memories(step) for step in steps]
    pointers = [_pointers(network, step) for step in steps]
    farthest = [_max_pointers(network, step) - 1 for step in steps]
    numbers = network.uploads.numbers(
        [
            [*(age for age, _ in remembered), *(distance / far for distance, _ in pointed)]
            for remembered, pointed, far in zip(memories, pointers, farthest, strict=True)
        ]
    )
    length = len(memories[0])
    return Past(
        # All at once: what several operations gather is copied several times.
        memories=_stack([[features for _, features in row] for row in memories]),
        ages=numbers[:, :length].long(),
        pointers=_stack_pointers(network, [[pointer for _, pointer in row] for row in pointers]),
        distances=numbers[:, length:],
        sources=[[features for _, features in row] for row in memories],
    )


def _max_pointers(network: Network, step: Step) -> int:
    """How far back pointers count: min(frames in the clip, 16) of SAM 2.1's position encoding."""
    return min(step.clip_length or network.max_pointers, network.max_pointers)


def _memories(step: Step) -> list[tuple[int, Tensor]]:
    return step.memory.memories_before(step.frame_index, reverse=step.reverse)


def _pointers(network: Network, step: Step) -> list[tuple[int, Tensor]]:
    return step.memory.pointers_before(step.frame_index, _max_pointers(network, step), reverse=step.reverse)


def _stack(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """``[B, N, ...]`` of B rows of N tensors, N > 0."""
    stacked = torch.stack([one for row in rows for one in row])
    return stacked.view(len(rows), len(rows[0]), *stacked.shape[1:])


def _stack_pointers(network: Network, rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """``[B, P, C]``; P is 0 if all prompted frames lie ahead."""
    if rows[0]:
        return _stack(rows)
    return torch.empty(len(rows), 0, network.model.hidden_dim, dtype=network.dtype, device=network.device)


@torch.inference_mode()
def consolidate_prompts(network: Network, memory: ObjectMemory) -> None:
    """Encode the memories of frames prompted since the last step (`propagate_in_video_preflight`)."""
    for index in memory.frames_to_consolidate():
        prompted = memory.prompted_frame(index)
        outcome = prompted.memory
        assert outcome.logits is not None
        features = network.encode_memory(
            prompted.top[None], outcome.logits[None], outcome.object_score[None], prompted=True
        )
        memory.consolidate(index, replace(outcome, features=features[0]))


def _decode_points(network: Network, step: Step, points: tuple[Tensor, Tensor], *, is_conditioning: bool) -> Decoded:
    """Decode clicks: a correction attends to the past, a conditioning frame does not; both refine earlier logits."""
    batch = Features.stack([step.features])
    features = (
        network.without_memory(batch.top) if is_conditioning else network.with_memory(batch.top, _past(network, [step]))
    )
    logits = step.memory.last_logits(step.frame_index)
    return network.decoder.decode(
        features,
        batch.fine,
        points=(points[0][None], points[1][None]),
        mask_logits=None if logits is None else logits[None].clamp(-FEEDBACK_LIMIT, FEEDBACK_LIMIT),
        multimask=network.decoder.use_multimask(initial=is_conditioning, num_points=len(points[1])),
    )


def _model_mask(network: Network, mask: npt.NDArray[np.bool_]) -> Tensor:
    """The client's mask ``bool[H, W]`` as ``float32[1, 1, S, S]`` of 0 and 1 (`add_new_mask`)."""
    square = square_mask(mask, network.image_size)
    return torch.from_numpy(square).float()[None, None].to(network.device)
