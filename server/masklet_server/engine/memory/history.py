"""What one object remembers where a client asks for tracking frame by frame, in either direction: everything.

`SAM2VideoPredictor` never frees the output of a frame, so that frames can be corrected, tracked again, and read from
either side. A history keeps as much, in the same order. In memory it holds only what the next step reads; the rest is
in a `TensorFile`.

Upstream's names: `conditioning` and `recent` are `cond_frame_outputs` and `non_cond_frame_outputs`, `prompted` is
`temp_output_dict_per_obj`, `clicks` is `point_inputs_per_obj`, and `tracked` is `frames_tracked_per_obj`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from masklet.errors import FailedPrecondition
from masklet_server.engine.memory.object_memory import (
    NUM_RECENT_MEMORIES,
    NUM_RECENT_POINTERS,
    FrameMemory,
    PromptedFrame,
    check_conditioning_frames,
)
from masklet_server.engine.memory.policies import MemoryPolicy, Policy
from masklet_server.engine.memory.tensor_file import StoredTensors, TensorFile


@dataclass(frozen=True, eq=False)
class StoredFrameMemory:
    """A `FrameMemory` in three parts, which move to the file at different times.

    Attributes:
        small: Pointer and scores.
        features: None if the memory is not encoded yet.
        logits: For showing and correcting the frame.
    """

    small: StoredTensors
    features: StoredTensors | None
    logits: StoredTensors

    @property
    def parts(self) -> Iterator[StoredTensors]:
        """The parts that there are."""
        yield self.small
        yield self.logits
        if self.features is not None:
            yield self.features

    @property
    def memory(self) -> FrameMemory:
        """The three parts together; they are read from the file if necessary."""
        features = {} if self.features is None else self.features.get()
        return FrameMemory(**self.small.get(), **features, **self.logits.get())

    def keep_in_memory(self, *, pointer: bool, features: bool) -> None:
        """Move everything else to the file; logits are never kept."""
        self.logits.move_to_file()
        if not pointer:
            self.small.move_to_file()
        if self.features is not None and not features:
            self.features.move_to_file()


@dataclass(frozen=True, eq=False)
class StoredPromptedFrame:
    """A `PromptedFrame` whose tensors can move to the file.

    Attributes:
        memory: What the prompt gave, without features.
        top: The frame's features.
        is_conditioning: False for a correction on a frame that was tracked before.
    """

    memory: StoredFrameMemory
    top: StoredTensors
    is_conditioning: bool


class History:
    """The memory of one object on every frame.

    Not safe for use from several threads: when a job is given to the engine, only the engine's thread changes it.

    Args:
        model: Name of the model that makes the memories.
        file: Stores what the next step does not read.
        recent_memories: How many memories of tracked frames a step attends to: the model's `num_maskmem` - 1.

    Attributes:
        tracked: By tracked frame, whether it was last tracked backward in time.
    """

    def __init__(self, model: str, file: TensorFile, recent_memories: int = NUM_RECENT_MEMORIES) -> None:
        self.model = model
        self.recent_memories = recent_memories
        self.memory_policy = MemoryPolicy.SAM2
        self.policy: Policy[Any] | None = None
        self.file = file
        self.conditioning: dict[int, StoredFrameMemory] = {}
        self.recent: dict[int, StoredFrameMemory] = {}
        self.prompted: dict[int, StoredPromptedFrame] = {}
        self.clicks: dict[int, tuple[Tensor, Tensor]] = {}
        self.tracked: dict[int, bool] = {}
        self._in_memory: set[int] = set()

    # What was tracked

    @property
    def conditioning_frames(self) -> set[int]:
        """Frames that were prompted before they were tracked."""
        return {*self.conditioning, *(i for i, prompted in self.prompted.items() if prompted.is_conditioning)}

    def was_tracked(self, frame_index: int) -> bool:
        """Whether the frame was tracked, so that a prompt on it is a correction."""
        return frame_index in self.tracked

    def was_tracked_backward(self, frame_index: int) -> bool:
        """Whether a tracked frame was last tracked backward in time."""
        return self.tracked[frame_index]

    def check_correctable(self, frame_index: int) -> None:
        """Every frame can be corrected, so this never raises."""

    def check_next(self, frame_index: int, *, reverse: bool = False) -> None:
        """Make sure that the object has a prompt; any frame may be tracked next.

        Raises:
            FailedPrecondition: The object has no conditioning frame.
        """
        if not self.conditioning_frames:
            raise FailedPrecondition("the object has no prompt, so there is nothing to track")

    def advance(self, frame_index: int, *, reverse: bool = False) -> None:
        """Note that the frame has been tracked; move to the file what the next step in this direction does not read."""
        self.tracked[frame_index] = reverse
        self._move_to_file(frame_index, reverse=reverse)

    def clear_prompts(self, frame_index: int) -> None:
        """Take back the prompts on the frame; its mask stays (`clear_all_prompts_in_frame`)."""
        self.clicks.pop(frame_index, None)
        self.prompted.pop(frame_index, None)
        if (entry := self.conditioning.pop(frame_index, None)) is not None:
            self.recent[frame_index] = entry
            self._in_memory.add(frame_index)
            self.tracked.pop(frame_index, None)

    # What a step reads

    def memories_before(self, frame_index: int, *, reverse: bool = False) -> list[tuple[int, Tensor]]:
        """Memories to attend to on a frame: pairs of age (0 for conditioning frames, else from 1) and features.

        Raises:
            FailedPrecondition: There is no conditioning frame; upstream asserts that there is one.
        """
        if not self.conditioning:
            raise FailedPrecondition(
                f"frame {frame_index} was tracked, and the prompts that it was tracked from are cleared; prompt the "
                "object on a frame that was not tracked, or remove the object and prompt it again"
            )
        chosen = [(0, entry.features) for entry in self.conditioning.values()]
        for age in range(self.recent_memories, 0, -1):
            if (entry := self._before(frame_index, age, reverse=reverse)) is not None:
                chosen.append((age, entry.features))
        return [(age, features.get()["features"]) for age, features in chosen if features is not None]

    def pointers_before(
        self, frame_index: int, most: int = NUM_RECENT_POINTERS + 1, *, reverse: bool = False
    ) -> list[tuple[int, Tensor]]:
        """Pointers to attend to on a frame: pairs of distance and pointer; `most` is min(frames of the clip, 16)."""
        sign = -1 if reverse else 1
        chosen = [(sign * (frame_index - i), entry) for i, entry in self.conditioning.items()]
        chosen = [(distance, entry) for distance, entry in chosen if distance >= 0]
        for distance in range(1, most):
            if (entry := self._before(frame_index, distance, reverse=reverse)) is not None:
                chosen.append((distance, entry))
        return [(distance, entry.small.get()["pointer"]) for distance, entry in chosen]

    def _before(self, frame_index: int, distance: int, *, reverse: bool) -> StoredFrameMemory | None:
        index = frame_index + distance if reverse else frame_index - distance
        return self._recent(index)

    def _recent(self, frame_index: int) -> StoredFrameMemory | None:
        if (entry := self.recent.get(frame_index)) is not None:
            self._in_memory.add(frame_index)  # reading brings it back into memory
        return entry

    def conditioning_memory(self, frame_index: int) -> FrameMemory | None:
        """The memory of a conditioning frame, with its logits; None for any other frame."""
        entry = self.conditioning.get(frame_index)
        return None if entry is None else entry.memory

    def last_logits(self, frame_index: int) -> Tensor | None:
        """Logits ``float32[1, 4h, 4w]`` that further clicks on the frame refine, or None."""
        memory = self.outcome(frame_index)
        return None if memory is None else memory.logits

    def outcome(self, frame_index: int) -> FrameMemory | None:
        """What is known of the object on the frame, prompted or tracked; None if nothing is."""
        if (prompted := self.prompted.get(frame_index)) is not None:
            return prompted.memory.memory
        entry = self.conditioning.get(frame_index) or self._recent(frame_index)
        return None if entry is None else entry.memory

    def frames_to_consolidate(self) -> list[int]:
        """PromptedFrame frames without an encoded memory: corrections first, as upstream does it."""
        return sorted(self.prompted, key=lambda index: self.prompted[index].is_conditioning)

    def prompted_frame(self, frame_index: int) -> PromptedFrame:
        """One of the frames that are not consolidated yet."""
        prompted = self.prompted[frame_index]
        return PromptedFrame(prompted.memory.memory, prompted.top.get()["top"], prompted.is_conditioning)

    # What a step writes

    def add_prompted(self, frame_index: int, prompted: PromptedFrame) -> None:
        """Note the outcome of a prompt; its memory is encoded when tracking goes on.

        Raises:
            ResourceExhausted: The object has `MAX_CONDITIONING_FRAMES` already, or the file is full.
        """
        frames = self.conditioning_frames
        if prompted.is_conditioning and frame_index not in frames:
            check_conditioning_frames(len(frames))
        self.prompted[frame_index] = StoredPromptedFrame(
            self._stored(prompted.memory), self.file.add({"top": prompted.top}), prompted.is_conditioning
        )
        self._move_to_file(frame_index, reverse=False)

    def consolidate(self, frame_index: int, memory: FrameMemory) -> None:
        """Remember a prompted frame; a correction on a conditioning frame is dropped, as upstream does."""
        if self.prompted.pop(frame_index).is_conditioning:
            self.conditioning[frame_index] = self._stored(memory)
            self.recent.pop(frame_index, None)
        elif frame_index not in self.conditioning:
            self.remember(frame_index, memory)

    def remember(self, frame_index: int, memory: FrameMemory) -> None:
        """Note the outcome of tracking a frame without a prompt."""
        self.recent[frame_index] = self._stored(memory)
        self._in_memory.add(frame_index)

    def _stored(self, memory: FrameMemory) -> StoredFrameMemory:
        tensors = dict(memory.tensors)
        logits, features = tensors.pop("logits"), tensors.pop("features", None)
        return StoredFrameMemory(
            small=self.file.add(tensors),
            features=None if features is None else self.file.add({"features": features}),
            logits=self.file.add({"logits": logits}),
        )

    def _move_to_file(self, frame_index: int, *, reverse: bool) -> None:
        """Keep in memory only what a step on the frame after this one, in that direction, reads."""
        for entry in self.conditioning.values():
            entry.keep_in_memory(pointer=True, features=True)
        for prompted in self.prompted.values():
            prompted.memory.keep_in_memory(pointer=False, features=False)
            prompted.top.move_to_file()
        for index in list(self._in_memory):
            distance = index - frame_index if reverse else frame_index - index
            pointer = index in self.recent and 0 <= distance < NUM_RECENT_POINTERS
            if index in self.recent:
                self.recent[index].keep_in_memory(pointer=pointer, features=0 <= distance < self.recent_memories)
            if not pointer:
                self._in_memory.discard(index)

    # Copies and sizes

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors in memory; any thread may ask."""
        # Lists, because a step may change the dictionaries at the same time.
        frames = [entry for index in list(self._in_memory) if (entry := self.recent.get(index)) is not None]
        frames += list(self.conditioning.values())
        parts = [part for entry in frames for part in entry.parts]
        for prompted in list(self.prompted.values()):
            parts += [*prompted.memory.parts, prompted.top]
        clicks = sum(coords.nbytes + labels.nbytes for coords, labels in list(self.clicks.values()))
        return clicks + sum(part.nbytes for part in parts)

    def copy(self) -> History:
        """A history with its own dictionaries that shares the tensors, which never change in place."""
        twin = History(self.model, self.file, self.recent_memories)
        twin.restore(self)
        return twin

    def restore(self, other: History) -> None:
        """Take over the state of a copy: this undoes a step that failed."""
        self.conditioning, self.recent = dict(other.conditioning), dict(other.recent)
        self.prompted, self.clicks = dict(other.prompted), dict(other.clicks)
        self.tracked = dict(other.tracked)
        self._in_memory |= (
            other._in_memory
        )  # frames that were read meanwhile are in memory, and must move to the file later

    def __repr__(self) -> str:
        return (
            f"History(model={self.model!r}, conditioning={list(self.conditioning)}, "
            f"tracked={len(self.tracked)} frames, nbytes={self.nbytes})"
        )
