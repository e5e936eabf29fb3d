"""What is kept of one frame, and what a step asks of an object's memory, whichever kind it is.

Where a method takes `reverse`, time is meant to run backwards: "before" a frame are then the frames after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from masklet_server.engine.memory.policies import MemoryPolicy, Policy

M = TypeVar("M", bound="ObjectMemory")


@dataclass(frozen=True, eq=False)
class Memory:
    """What is kept of one frame.

    Attributes:
        pointer: ``[C]``.
        object_score: ``float32[1]``, a logit.
        predicted_iou: ``float32[]``.
        features: ``bfloat16[M, h, w]``, or None once no step can ask for them.
        logits: ``float32[1, 4h, 4w]``, or None once the frame can be neither shown nor corrected.
    """

    pointer: Tensor
    object_score: Tensor
    predicted_iou: Tensor
    features: Tensor | None = None
    logits: Tensor | None = None

    @property
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name."""
        for field in dataclasses.fields(self):
            if (tensor := getattr(self, field.name)) is not None:
                yield field.name, tensor


@dataclass(frozen=True, eq=False)
class Prompted:
    """A prompted frame whose memory is still to be encoded: prompts may yet be added to it.

    Attributes:
        memory: Without features.
        top: ``[C, h, w]``, the picture's features, to encode the memory from.
        is_conditioning: False for a correction on a frame that was tracked before.
    """

    memory: Memory
    top: Tensor
    is_conditioning: bool


class ObjectMemory(Protocol):
    """The memory of one object: `MemoryBank` keeps what tracking onwards reads, `History` keeps everything.

    Attributes:
        clicks: By frame, all points given on it: ``float32[N, 2]`` in pixels of the model's square, ``int32[N]``.
        memory_policy: Which tracked frames are remembered.
        policy: Its state; None for SAM 2's own, which needs none.
    """

    clicks: dict[int, tuple[Tensor, Tensor]]
    memory_policy: MemoryPolicy
    policy: Policy[Any] | None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors it holds in memory; may be asked from any thread."""

    # What was tracked.

    def was_tracked(self, frame_index: int) -> bool:
        """Whether the frame was tracked, so that a prompt on it is a correction."""

    def was_tracked_backward(self, frame_index: int) -> bool:
        """Whether a tracked frame was tracked backwards in time, when last."""

    def check_correctable(self, frame_index: int) -> None:
        """Make sure that everything a correction on the frame needs is here; InvalidArgument else."""

    def check_next(self, frame_index: int, *, reverse: bool) -> None:
        """Make sure that the frame may be tracked next; FailedPrecondition else."""

    def advance(self, frame_index: int, *, reverse: bool) -> None:
        """The frame has been tracked."""

    # What a step reads.

    def memories_before(self, frame_index: int, *, reverse: bool) -> list[tuple[int, Tensor]]:
        """Memories to attend to on a frame: pairs of age (0 for conditioning frames, else 1 to 6) and features."""

    def pointers_before(self, frame_index: int, most: int, *, reverse: bool) -> list[tuple[int, Tensor]]:
        """Pointers to attend to on a frame: pairs of distance and pointer; `most` is min(frames of the clip, 16)."""

    def conditioned(self, frame_index: int) -> Memory | None:
        """What a conditioning frame is remembered by, with its logits if they can be had; None for any other frame."""

    def found(self, frame_index: int) -> Memory | None:
        """What is known of the object on the frame, prompted or tracked."""

    def last_logits(self, frame_index: int) -> Tensor | None:
        """Logits ``float32[1, 4h, 4w]`` of the frame so far, to go on from with further clicks, or None."""

    def waiting(self) -> Sequence[int]:
        """Prompted frames whose memories are still to be encoded, in the order in which that is to be done."""

    def waiting_prompt(self, frame_index: int) -> Prompted:
        """One of them."""

    # What a step writes.

    def add_prompted(self, frame_index: int, prompted: Prompted) -> None:
        """Note the outcome of a prompt; its memory is encoded when tracking goes on. May raise ResourceExhausted."""

    def clear_prompts(self, frame_index: int) -> None:
        """Take back what was prompted on the frame; FailedPrecondition where that cannot be."""

    def consolidate(self, frame_index: int, memory: Memory) -> None:
        """Turn a prompted frame into a remembered one."""

    def remember(self, frame_index: int, memory: Memory) -> None:
        """Note what was found on a frame without a prompt."""

    # All of it.

    def copy(self: M) -> M:
        """One that shares the tensors (which nothing changes in place) and not the books."""

    def restore(self: M, other: M) -> None:
        """Become what `other` is: undoes a step that failed half-way."""
