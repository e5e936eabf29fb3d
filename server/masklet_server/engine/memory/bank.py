"""What one object remembers while it is tracked forward: SAM 2's memory, in constant space.

`SAM2VideoPredictor` never frees the output of a frame, and reads only a few outputs. A bank keeps only those few:

1. the memory and the pointer of every conditioning frame (a frame that was prompted before it was tracked);
2. the memories of the last tracked frames (`num_maskmem` - 1: 6 with Meta's models);
3. the object pointers of the last 15 tracked frames (`max_obj_ptrs_in_encoder` - 1);
4. the first and the last tracked frame, which tell a new conditioning frame from a correction;
5. all of this for `correction_window` frames more, with their logits and clicks, so that they can be corrected.

A bank goes forward in time only. It can be dumped to bytes; when it is loaded, it goes on with the same masks.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from masklet.errors import FailedPrecondition, InvalidArgument
from masklet_server.engine.memory.bank_format import BankContents, read_bank, write_bank
from masklet_server.engine.memory.object_memory import (
    NUM_RECENT_MEMORIES,
    NUM_RECENT_POINTERS,
    FrameMemory,
    PromptedFrame,
    check_conditioning_frames,
)
from masklet_server.engine.memory.policies import MemoryPolicy, Policy, new_policy


class MemoryBank:
    """The memory of one object.

    Not safe for use from several threads: when a job is given to the engine, only the engine's thread changes the bank.

    Args:
        model: Name of the model that makes the memories; a dump can be loaded for the same model only.
        correction_window: How many of the last tracked frames can still be corrected.
        memory_policy: Which tracked frames are remembered. A policy other than SAM 2's holds their memories itself.
        recent_memories: How many memories of tracked frames a step attends to: the model's `num_maskmem` - 1.

    Attributes:
        keeps_prompts: Clicks, and the logits of conditioning frames, are never freed. The object's frames can then be
            corrected after a snapshot is loaded; see `masklet_server.engine.memory.snapshots`.
    """

    def __init__(
        self,
        model: str = "",
        *,
        correction_window: int = 0,
        memory_policy: MemoryPolicy = MemoryPolicy.SAM2,
        recent_memories: int = NUM_RECENT_MEMORIES,
    ) -> None:
        self.model = model
        self.memory_policy = memory_policy
        self.policy: Policy[Any] | None = new_policy(memory_policy, recent_memories)
        self.recent_memories = recent_memories
        self.correction_window = correction_window
        self.keeps_prompts = False
        self.first_frame: int | None = None
        self.last_frame: int | None = None
        self.conditioning: dict[int, FrameMemory] = {}
        self.recent: dict[int, FrameMemory] = {}
        self.prompted: dict[int, PromptedFrame] = {}
        self.clicks: dict[int, tuple[Tensor, Tensor]] = {}

    # What was tracked

    def was_tracked(self, frame_index: int) -> bool:
        """Whether the frame lies between the first and the last tracked one."""
        if self.first_frame is None or self.last_frame is None:
            return False
        return self.first_frame <= frame_index <= self.last_frame

    def was_tracked_backward(self, frame_index: int) -> bool:
        """Always False: a bank goes forward only."""
        return False

    def check_next(self, frame_index: int, *, reverse: bool = False) -> None:
        """Make sure that no frame is skipped and that none is tracked twice.

        Raises:
            FailedPrecondition: The frame does not follow the last tracked one, or the object has no prompt yet.
        """
        if reverse:
            raise FailedPrecondition("a memory bank goes forward in time only")
        if not self.conditioning and not self.prompted:
            raise FailedPrecondition("the object has no prompt yet, so there is nothing to track")
        if self.last_frame is not None and frame_index != self.last_frame + 1:
            raise FailedPrecondition(
                f"frame {frame_index} does not follow frame {self.last_frame}, the last one tracked"
            )

    def advance(self, frame_index: int, *, reverse: bool = False) -> None:
        """Note that the frame has been tracked, and drop what no later step or correction needs."""
        if self.first_frame is None:
            self.first_frame = frame_index
        self.last_frame = frame_index
        self._trim(frame_index)

    def keep(self, correction_window: int) -> None:
        """Set how many of the last tracked frames can be corrected, and drop what only earlier frames need.

        A window that is wider than before applies to frames that are tracked from now on.
        """
        self.correction_window = correction_window
        if self.last_frame is not None:
            self._trim(self.last_frame)

    def _trim(self, frame_index: int) -> None:
        oldest_pointer = frame_index - NUM_RECENT_POINTERS - self.correction_window
        oldest_features = frame_index - self.recent_memories - self.correction_window
        oldest_logits = frame_index - self.correction_window
        for index in [i for i in self.recent if i <= oldest_pointer]:
            del self.recent[index]
        for memories, is_conditioning in ((self.recent, False), (self.conditioning, True)):
            keep_logits = is_conditioning and self.keeps_prompts
            for index, memory in memories.items():
                memories[index] = memory.without(
                    features=not is_conditioning and index <= oldest_features,
                    logits=not keep_logits and index <= oldest_logits,
                )
        for index in [i for i in self.clicks if i <= oldest_logits and not self.keeps_prompts]:
            del self.clicks[index]
        if self.policy is not None:
            self.policy.forget(frame_index, self.correction_window)

    def rewind(self, frame_index: int) -> None:
        """Forget what was tracked after the frame, so that the next step tracks the frame after it again.

        Conditioning frames stay: tracking again does not take back a prompt. A frame before the first tracked one, or
        any frame if none was tracked, is possible too if it is prompted: such a frame needs no step of its own.

        Raises:
            InvalidArgument: The frame lies outside the correction window.
        """
        if frame_index in self.prompted and (self.first_frame is None or frame_index < self.first_frame):
            self.first_frame = frame_index
        else:
            self.check_correctable(frame_index)
        for index in [i for i in self.recent if i > frame_index]:
            del self.recent[index]
        self.last_frame = frame_index
        if self.policy is not None:
            self.policy.rewind(frame_index)

    def learn_prompts(self, later: MemoryBank) -> None:
        """Take over the prompts of a later state of the same object: exactly what that state keeps when it rewinds.

        Both banks must have `keeps_prompts`.
        """
        self.conditioning, self.clicks = dict(later.conditioning), dict(later.clicks)

    def check_correctable(self, frame_index: int) -> None:
        """Make sure that the bank still has everything that a correction on the frame needs.

        Raises:
            InvalidArgument: The frame lies outside the correction window.
        """
        last = self.last_frame
        if last is None or not self.was_tracked(frame_index) or frame_index <= last - self.correction_window:
            raise InvalidArgument.of(
                "frame_index",
                f"is {frame_index}; only the last {self.correction_window} tracked frames, up to frame {last}, can be "
                "corrected",
            )

    # What a step reads

    def memories_before(self, frame_index: int, *, reverse: bool = False) -> list[tuple[int, Tensor]]:
        """Memories to attend to on a frame: pairs of age (0 for conditioning frames, else from 1) and features."""
        chosen = [(0, memory.features) for memory in self.conditioning.values()]
        if self.policy is not None:
            chosen += self.policy.memories_before(frame_index)
        for age in range(self.recent_memories, 0, -1):
            if (memory := self.recent.get(frame_index - age)) is not None:
                chosen.append((age, memory.features))
        return [(age, features) for age, features in chosen if features is not None]

    def pointers_before(
        self, frame_index: int, most: int = NUM_RECENT_POINTERS + 1, *, reverse: bool = False
    ) -> list[tuple[int, Tensor]]:
        """Pointers to attend to on a frame: pairs of distance and pointer; `most` is min(frames of the clip, 16)."""
        chosen = [(frame_index - i, memory.pointer) for i, memory in self.conditioning.items() if i <= frame_index]
        for distance in range(1, most):
            if (memory := self.recent.get(frame_index - distance)) is not None:
                chosen.append((distance, memory.pointer))
        return chosen

    def conditioning_memory(self, frame_index: int) -> FrameMemory | None:
        """The memory of a conditioning frame; None for any other frame."""
        return self.conditioning.get(frame_index)

    def outcome(self, frame_index: int) -> FrameMemory | None:
        """What is known of the object on the frame, prompted or tracked; None if nothing is."""
        if (prompted := self.prompted.get(frame_index)) is not None:
            return prompted.memory
        return self.conditioning.get(frame_index) or self.recent.get(frame_index)

    def last_logits(self, frame_index: int) -> Tensor | None:
        """Logits ``float32[1, 4h, 4w]`` that further clicks on the frame refine, or None."""
        memory = self.outcome(frame_index)
        return None if memory is None else memory.logits

    def frames_to_consolidate(self) -> list[int]:
        """PromptedFrame frames without an encoded memory: corrections first, as upstream does it."""
        return sorted(self.prompted, key=lambda index: self.prompted[index].is_conditioning)

    def prompted_frame(self, frame_index: int) -> PromptedFrame:
        """One of the frames that are not consolidated yet."""
        return self.prompted[frame_index]

    # What a step writes

    def add_prompted(self, frame_index: int, prompted: PromptedFrame) -> None:
        """Note the outcome of a prompt; its memory is encoded when tracking goes on.

        Raises:
            ResourceExhausted: The object has `MAX_CONDITIONING_FRAMES` already.
        """
        known = frame_index in self.conditioning or frame_index in self.prompted
        if prompted.is_conditioning and not known:
            check_conditioning_frames(len(self.conditioning) + sum(p.is_conditioning for p in self.prompted.values()))
        self.prompted[frame_index] = prompted

    def clear_prompts(self, frame_index: int) -> None:
        """Not possible, because a bank forgets what was tracked from the prompt; raises FailedPrecondition."""
        raise FailedPrecondition("a memory bank takes no prompt back; use a history")

    def consolidate(self, frame_index: int, memory: FrameMemory) -> None:
        """Remember a prompted frame; a correction on a conditioning frame is dropped, as upstream does."""
        prompted = self.prompted.pop(frame_index)
        if prompted.is_conditioning:
            self.conditioning[frame_index] = memory
            self.recent.pop(frame_index, None)
        if self.policy is not None:
            correction = None if prompted.is_conditioning else memory.features
            self.policy.note_prompt(frame_index, _shown(memory), correction)
            memory = memory if prompted.is_conditioning else dataclasses.replace(memory, features=None)
        if not prompted.is_conditioning and frame_index not in self.conditioning:
            self.recent[frame_index] = memory

    def remember(self, frame_index: int, memory: FrameMemory) -> None:
        """Note the outcome of tracking a frame without a prompt."""
        if self.policy is not None and memory.features is not None:
            self.policy.remember(frame_index, memory.features)
            memory = dataclasses.replace(memory, features=None)
        self.recent[frame_index] = memory

    # Copies, dumps and sizes

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; a view counts as large as it looks. Any thread may ask."""
        # Lists, because a step may change the dictionaries at the same time.
        prompted, clicks = list(self.prompted.values()), list(self.clicks.values())
        memories = [*self.conditioning.values(), *self.recent.values(), *(p.memory for p in prompted)]
        total = sum(memory.nbytes for memory in memories)
        total += sum(p.top.nbytes for p in prompted)
        total += sum(coords.nbytes + labels.nbytes for coords, labels in clicks)
        return total if self.policy is None else total + self.policy.nbytes

    @property
    def correction_nbytes(self) -> int:
        """Bytes that are kept only so that frames can be corrected."""
        smallest = self.copy()
        smallest.keep(0)
        return self.nbytes - smallest.nbytes

    def copy(self) -> MemoryBank:
        """A bank with its own dictionaries that shares the tensors, which never change in place."""
        twin = MemoryBank(
            self.model,
            correction_window=self.correction_window,
            memory_policy=self.memory_policy,
            recent_memories=self.recent_memories,
        )
        twin.keeps_prompts = self.keeps_prompts
        twin.restore(self)
        return twin

    def restore(self, other: MemoryBank) -> None:
        """Take over the state of a copy: this undoes a step that failed."""
        self.first_frame, self.last_frame = other.first_frame, other.last_frame
        self.conditioning, self.recent = dict(other.conditioning), dict(other.recent)
        self.prompted, self.clicks = dict(other.prompted), dict(other.clicks)
        self.policy = None if other.policy is None else other.policy.copy()

    def dump(self) -> bytes:
        """The bank as bytes, with prompts that are not consolidated yet; `load` reads them."""
        state = {
            "model": self.model,
            "correction_window": self.correction_window,
            "first_frame": self.first_frame,
            "last_frame": self.last_frame,
            "keeps_prompts": self.keeps_prompts,
            "recent_memories": self.recent_memories,
            "policy": None if self.policy is None else self.policy.to_json(),
        }
        selected = {} if self.policy is None else dict(self.policy.tensors)
        return write_bank(BankContents(state, self.conditioning, self.recent, self.prompted, self.clicks, selected))

    @classmethod
    def load(cls, data: bytes, *, model: str, device: torch.device | str = "cpu") -> MemoryBank:
        """A bank from the bytes that `dump` gave.

        Raises:
            InvalidArgument: These are not a bank's bytes, or the bank belongs to another model.
        """
        contents = read_bank(data, model=model, device=device)
        state = contents.state
        bank = cls(
            model,
            correction_window=state["correction_window"],
            memory_policy=contents.memory_policy,
            recent_memories=state.get("recent_memories", NUM_RECENT_MEMORIES),
        )
        bank.keeps_prompts = state.get("keeps_prompts", False)
        bank.first_frame, bank.last_frame = state["first_frame"], state["last_frame"]
        bank.conditioning, bank.recent = contents.conditioning, contents.recent
        bank.prompted, bank.clicks = contents.prompted, contents.clicks
        if bank.policy is not None:
            bank.policy.load(contents.policy_state, contents.selected)
        return bank

    def __repr__(self) -> str:
        return (
            f"MemoryBank(model={self.model!r}, tracked={self.first_frame}..{self.last_frame}, "
            f"conditioning={list(self.conditioning)}, recent={list(self.recent)}, nbytes={self.nbytes})"
        )


def _shown(memory: FrameMemory) -> npt.NDArray[np.bool_]:
    """``bool[4h, 4w]``, the mask of a memory that has its logits."""
    assert memory.logits is not None
    mask: npt.NDArray[np.bool_] = (memory.logits[0] > 0).cpu().numpy()
    return mask
