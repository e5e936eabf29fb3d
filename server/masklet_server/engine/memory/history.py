"""What one object keeps where tracking is asked for frame by frame, in either direction: SAM 2's memory, all of it.

`SAM2VideoPredictor` keeps every frame's output for ever, so that it can be corrected, tracked again and read from
either side. A history keeps as much, in the same order, but holds in memory only what the next step reads; the rest
lies in a `TensorFile`. Upstream's names: `conditioning` and `recent` are `cond_frame_outputs` and
`non_cond_frame_outputs`, `prompted` is `temp_output_dict_per_obj`, `clicks` is `point_inputs_per_obj`, and `_tracked`
is `frames_tracked_per_obj`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from masklet.errors import FailedPrecondition
from masklet_server.engine.memory.bank import NUM_RECENT_MEMORIES, NUM_RECENT_POINTERS, check_room
from masklet_server.engine.memory.object_memory import Memory, Prompted
from masklet_server.engine.memory.policies import MemoryPolicy, Policy
from masklet_server.engine.memory.tensor_file import Kept, TensorFile


@dataclass(frozen=True, eq=False)
class _Entry:
    """A `Memory` in parts that are put away at different times.

    Attributes:
        small: Pointer and scores.
        features: None where the memory is still to be encoded.
        logits: To show the frame, and to correct it.
    """

    small: Kept
    features: Kept | None
    logits: Kept

    @property
    def parts(self) -> Iterator[Kept]:
        """All of them."""
        yield self.small
        yield self.logits
        if self.features is not None:
            yield self.features

    @property
    def memory(self) -> Memory:
        """The whole."""
        features = {} if self.features is None else self.features.get()
        return Memory(**self.small.get(), **features, **self.logits.get())

    def keep_near(self, *, pointer: bool, features: bool) -> None:
        """Put away what is not said to be needed soon; logits never are."""
        self.logits.put_away()
        if not pointer:
            self.small.put_away()
        if self.features is not None and not features:
            self.features.put_away()


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A `Prompted`, put away."""

    entry: _Entry
    top: Kept
    is_conditioning: bool


class History:
    """The memory of one object on every frame.

    Not safe to be used from several threads: once handed to the engine, only the engine's thread changes it.

    Args:
        model: Name of the model that makes its memories.
        shelf: Takes what is not needed soon.
    """

    def __init__(self, model: str, shelf: TensorFile) -> None:
        self.model = model
        self.memory_policy = MemoryPolicy.SAM2
        self.policy: Policy[Any] | None = None
        self.shelf = shelf
        self.conditioning: dict[int, _Entry] = {}
        self.recent: dict[int, _Entry] = {}
        self.prompted: dict[int, _Waiting] = {}
        self.clicks: dict[int, tuple[Tensor, Tensor]] = {}
        self._tracked: dict[int, bool] = {}
        self._near: set[int] = set()

    # What was tracked.

    @property
    def conditioning_frames(self) -> set[int]:
        """Frames that were prompted before they were tracked."""
        return {*self.conditioning, *(i for i, waiting in self.prompted.items() if waiting.is_conditioning)}

    def was_tracked(self, frame_index: int) -> bool:
        """Whether the frame was tracked, so that a prompt on it is a correction."""
        return frame_index in self._tracked

    def was_tracked_backward(self, frame_index: int) -> bool:
        """Whether a tracked frame was tracked backwards in time, when last."""
        return self._tracked[frame_index]

    def check_correctable(self, frame_index: int) -> None:
        """Every frame is."""

    def check_next(self, frame_index: int, *, reverse: bool = False) -> None:
        """Any frame may be tracked next, once something was prompted.

        Raises:
            FailedPrecondition: The object has no conditioning frame.
        """
        if not self.conditioning_frames:
            raise FailedPrecondition("the object has no prompt, so there is nothing to track")

    def advance(self, frame_index: int, *, reverse: bool = False) -> None:
        """The frame has been tracked: put away what the next step in this direction does not read."""
        self._tracked[frame_index] = reverse
        self._put_away(frame_index, reverse=reverse)

    def clear_prompts(self, frame_index: int) -> None:
        """Take back what was prompted on the frame; what was found there stays (`clear_all_prompts_in_frame`)."""
        self.clicks.pop(frame_index, None)
        self.prompted.pop(frame_index, None)
        if (entry := self.conditioning.pop(frame_index, None)) is not None:
            self.recent[frame_index] = entry
            self._near.add(frame_index)
            self._tracked.pop(frame_index, None)

    # What a step reads.

    def memories_before(self, frame_index: int, *, reverse: bool = False) -> list[tuple[int, Tensor]]:
        """Memories to attend to on a frame: pairs of age (0 for conditioning frames, else 1 to 6) and features.

        Raises:
            FailedPrecondition: There is no conditioning frame, which upstream asserts.
        """
        if not self.conditioning:
            raise FailedPrecondition(
                f"frame {frame_index} was tracked, and the prompts that it was tracked from are cleared; prompt the "
                "object on a frame that was not tracked, or remove it and prompt it anew"
            )
        chosen = [(0, entry.features) for entry in self.conditioning.values()]
        for age in range(NUM_RECENT_MEMORIES, 0, -1):
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

    def _before(self, frame_index: int, distance: int, *, reverse: bool) -> _Entry | None:
        index = frame_index + distance if reverse else frame_index - distance
        return self._recent(index)

    def _recent(self, frame_index: int) -> _Entry | None:
        if (entry := self.recent.get(frame_index)) is not None:
            self._near.add(frame_index)  # it may come back into memory
        return entry

    def conditioned(self, frame_index: int) -> Memory | None:
        """What a conditioning frame is remembered by, with its logits; None for any other frame."""
        entry = self.conditioning.get(frame_index)
        return None if entry is None else entry.memory

    def last_logits(self, frame_index: int) -> Tensor | None:
        """Logits ``float32[1, 4h, 4w]`` of the frame so far, to go on from with further clicks, or None."""
        memory = self.found(frame_index)
        return None if memory is None else memory.logits

    def found(self, frame_index: int) -> Memory | None:
        """What is known of the object on the frame, prompted or tracked."""
        if (waiting := self.prompted.get(frame_index)) is not None:
            return waiting.entry.memory
        entry = self.conditioning.get(frame_index) or self._recent(frame_index)
        return None if entry is None else entry.memory

    def waiting(self) -> list[int]:
        """Prompted frames whose memories are still to be encoded, corrections first as upstream does it."""
        return sorted(self.prompted, key=lambda index: self.prompted[index].is_conditioning)

    def waiting_prompt(self, frame_index: int) -> Prompted:
        """One of them."""
        waiting = self.prompted[frame_index]
        return Prompted(waiting.entry.memory, waiting.top.get()["top"], waiting.is_conditioning)

    # What a step writes.

    def add_prompted(self, frame_index: int, prompted: Prompted) -> None:
        """Note the outcome of a prompt; its memory is encoded when tracking goes on.

        Raises:
            ResourceExhausted: The object has as many conditioning frames as are allowed, or the shelf is full.
        """
        frames = self.conditioning_frames
        if prompted.is_conditioning and frame_index not in frames:
            check_room(len(frames))
        self.prompted[frame_index] = _Waiting(
            self._entry(prompted.memory), self.shelf.keep({"top": prompted.top}), prompted.is_conditioning
        )
        self._put_away(frame_index, reverse=False)

    def consolidate(self, frame_index: int, memory: Memory) -> None:
        """Turn a prompted frame into a remembered one; a correction on a conditioning frame is dropped, as upstream."""
        if self.prompted.pop(frame_index).is_conditioning:
            self.conditioning[frame_index] = self._entry(memory)
            self.recent.pop(frame_index, None)
        elif frame_index not in self.conditioning:
            self.remember(frame_index, memory)

    def remember(self, frame_index: int, memory: Memory) -> None:
        """Note what was found on a frame without a prompt."""
        self.recent[frame_index] = self._entry(memory)
        self._near.add(frame_index)

    def _entry(self, memory: Memory) -> _Entry:
        tensors = dict(memory.tensors)
        logits, features = tensors.pop("logits"), tensors.pop("features", None)
        return _Entry(
            small=self.shelf.keep(tensors),
            features=None if features is None else self.shelf.keep({"features": features}),
            logits=self.shelf.keep({"logits": logits}),
        )

    def _put_away(self, frame_index: int, *, reverse: bool) -> None:
        """Hold in memory what a step on the frame after this one reads, in that direction, and no more."""
        for entry in self.conditioning.values():
            entry.keep_near(pointer=True, features=True)
        for waiting in self.prompted.values():
            waiting.entry.keep_near(pointer=False, features=False)
            waiting.top.put_away()
        for index in list(self._near):
            distance = index - frame_index if reverse else frame_index - index
            pointer = index in self.recent and 0 <= distance < NUM_RECENT_POINTERS
            if index in self.recent:
                self.recent[index].keep_near(pointer=pointer, features=0 <= distance < NUM_RECENT_MEMORIES)
            if not pointer:
                self._near.discard(index)

    # All of it.

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held in memory."""
        near = [entry for index in list(self._near) if (entry := self.recent.get(index)) is not None]
        near += list(self.conditioning.values())
        kept = [part for entry in near for part in entry.parts]
        for waiting in list(self.prompted.values()):
            kept += [*waiting.entry.parts, waiting.top]
        clicks = sum(coords.nbytes + labels.nbytes for coords, labels in list(self.clicks.values()))
        return clicks + sum(part.nbytes for part in kept)

    def copy(self) -> History:
        """A history that shares the tensors (which nothing changes in place) and not the books."""
        twin = History(self.model, self.shelf)
        twin.restore(self)
        return twin

    def restore(self, other: History) -> None:
        """Become what `other` is: undoes a step that failed half-way."""
        self.conditioning, self.recent = dict(other.conditioning), dict(other.recent)
        self.prompted, self.clicks = dict(other.prompted), dict(other.clicks)
        self._tracked = dict(other._tracked)
        self._near |= other._near  # what was read meanwhile is in memory, and has to be put away some time

    def __repr__(self) -> str:
        return (
            f"History(model={self.model!r}, conditioning={list(self.conditioning)}, "
            f"tracked={len(self._tracked)} frames, nbytes={self.nbytes})"
        )
