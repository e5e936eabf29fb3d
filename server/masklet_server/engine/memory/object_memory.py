"""What is remembered of one object on one frame, and what a step asks of an object's memory of either kind.

Where a method takes `reverse`, time runs backward: the frames "before" a frame are then those with higher indices.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from masklet.errors import ResourceExhausted
from masklet_server.engine.memory.policies import MemoryPolicy, Policy

# Memories of tracked frames that a step attends to with Meta's models: upstream's `num_maskmem` is 7, and one of the 7
# places is for the conditioning frames (`SAM2Base._prepare_memory_conditioned_features`).
NUM_RECENT_MEMORIES = 6
# Object pointers of tracked frames that a step attends to: upstream's `max_obj_ptrs_in_encoder` is 16 and counts the
# frame that is tracked.
NUM_RECENT_POINTERS = 15
# Upstream has no bound. Each conditioning frame costs as much attention as a recent one, on every later frame; SAM 2
# was trained on clips of 8 frames.
MAX_CONDITIONING_FRAMES = 32

M = TypeVar("M", bound="ObjectMemory")


@dataclass(frozen=True, eq=False)
class FrameMemory:
    """What is remembered of an object on one frame.

    Attributes:
        pointer: ``[C]``, the object pointer.
        object_score: ``float32[1]``, a logit.
        predicted_iou: ``float32[]``.
        features: ``bfloat16[M, h, w]``, the memory that later steps attend to; None if no step needs it any more.
        logits: ``float32[1, 4h, 4w]``; None if the frame can be neither shown nor corrected any more.
    """

    pointer: Tensor
    object_score: Tensor
    predicted_iou: Tensor
    features: Tensor | None = None
    logits: Tensor | None = None

    @property
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every tensor that is there."""
        for field in dataclasses.fields(self):
            if (tensor := getattr(self, field.name)) is not None:
                yield field.name, tensor

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors; a view counts as large as it looks."""
        return sum(tensor.nbytes for _, tensor in self.tensors)

    def without(self, *, features: bool, logits: bool) -> FrameMemory:
        """The same without features, without logits, or as it is."""
        drops_features, drops_logits = features and self.features is not None, logits and self.logits is not None
        if not drops_features and not drops_logits:
            return self
        return dataclasses.replace(
            self,
            features=None if drops_features else self.features,
            logits=None if drops_logits else self.logits,
        )


@dataclass(frozen=True, eq=False)
class PromptedFrame:
    """A prompted frame that is not consolidated yet: its memory is encoded when tracking goes on.

    Attributes:
        memory: What the prompt gave, without features.
        top: ``[C, h, w]``, the frame's features, from which the memory will be encoded.
        is_conditioning: False for a correction on a frame that was tracked before.
    """

    memory: FrameMemory
    top: Tensor
    is_conditioning: bool


class ObjectMemory(Protocol):
    """The memory of one object: `MemoryBank` remembers what the next steps read, `History` remembers everything.

    Attributes:
        clicks: By frame, all points given on it: ``float32[N, 2]`` in pixels of the model's square, ``int32[N]``.
        memory_policy: Which tracked frames are remembered.
        policy: The policy's state; None for SAM 2's own rule, which needs none.
    """

    clicks: dict[int, tuple[Tensor, Tensor]]
    memory_policy: MemoryPolicy
    policy: Policy[Any] | None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors in memory; any thread may ask."""

    # What was tracked

    def was_tracked(self, frame_index: int) -> bool:
        """Whether the frame was tracked, so that a prompt on it is a correction."""

    def was_tracked_backward(self, frame_index: int) -> bool:
        """Whether a tracked frame was last tracked backward in time."""

    def check_correctable(self, frame_index: int) -> None:
        """Raise InvalidArgument if the frame can no longer be corrected."""

    def check_next(self, frame_index: int, *, reverse: bool) -> None:
        """Raise FailedPrecondition if the frame cannot be tracked next."""

    def advance(self, frame_index: int, *, reverse: bool) -> None:
        """Note that the frame has been tracked, and free what later steps do not need."""

    # What a step reads

    def memories_before(self, frame_index: int, *, reverse: bool) -> list[tuple[int, Tensor]]:
        """Memories to attend to on a frame: pairs of age (0 for conditioning frames, else 1 to 6) and features."""

    def pointers_before(self, frame_index: int, most: int, *, reverse: bool) -> list[tuple[int, Tensor]]:
        """Pointers to attend to on a frame: pairs of distance and pointer; `most` is min(frames of the clip, 16)."""

    def conditioning_memory(self, frame_index: int) -> FrameMemory | None:
        """The memory of a conditioning frame, with logits if they are still there; None for any other frame."""

    def outcome(self, frame_index: int) -> FrameMemory | None:
        """What is known of the object on the frame, prompted or tracked; None if nothing is."""

    def last_logits(self, frame_index: int) -> Tensor | None:
        """Logits ``float32[1, 4h, 4w]`` that further clicks on the frame refine, or None."""

    def frames_to_consolidate(self) -> Sequence[int]:
        """Prompted frames without an encoded memory, in the order in which upstream encodes them."""

    def prompted_frame(self, frame_index: int) -> PromptedFrame:
        """One of the frames that are not consolidated yet."""

    # What a step writes

    def add_prompted(self, frame_index: int, prompted: PromptedFrame) -> None:
        """Note the outcome of a prompt; may raise ResourceExhausted."""

    def clear_prompts(self, frame_index: int) -> None:
        """Take back the prompts on the frame; FailedPrecondition if this memory cannot."""

    def consolidate(self, frame_index: int, memory: FrameMemory) -> None:
        """Remember a prompted frame by its encoded memory."""

    def remember(self, frame_index: int, memory: FrameMemory) -> None:
        """Note the outcome of tracking a frame without a prompt."""

    # Copies

    def copy(self: M) -> M:
        """A memory with its own dictionaries that shares the tensors, which never change in place."""

    def restore(self: M, other: M) -> None:
        """Take over the state of a copy: this undoes a step that failed."""


def check_conditioning_frames(count: int) -> None:
    """Make sure that an object with so many conditioning frames may have one more.

    Raises:
        ResourceExhausted: It has `MAX_CONDITIONING_FRAMES` already.
    """
    if count >= MAX_CONDITIONING_FRAMES:
        raise ResourceExhausted(
            f"the object has prompts on {MAX_CONDITIONING_FRAMES} frames, which is the limit; "
            "remove the object and prompt it again on this frame to go on"
        )
