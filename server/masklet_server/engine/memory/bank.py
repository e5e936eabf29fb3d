"""What one object keeps of its past: SAM 2's memory, in constant space.

`SAM2VideoPredictor` keeps every frame's output for ever and reads a few of them. A bank keeps those few, which are

1. of every conditioning frame (one that was prompted before it was tracked): its memory and its pointer;
2. of the last 6 tracked frames (`num_maskmem` - 1): their memories;
3. of the last 15 (`max_obj_ptrs_in_encoder` - 1): their object pointers;
4. from which frame to which the object was tracked, which tells a new conditioning frame from a correction;
5. of the last `correction_window` frames, as long again, so that they can be corrected: logits and clicks too.

Everything here is forward in time. A bank dumps to bytes and goes on elsewhere with the same masks.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from masklet.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from masklet_server.engine.memory.object_memory import Memory, Prompted
from masklet_server.engine.memory.policies import MemoryPolicy, Policy, new_policy

NUM_RECENT_MEMORIES = 6
NUM_RECENT_POINTERS = 15
# Each costs as much attention as a recent frame, for ever; SAM 2 was trained with at most 8 prompted frames in 8.
MAX_CONDITIONING_FRAMES = 32
_FORMAT = "masklet-bank-1"


class MemoryBank:
    """The memory of one object.

    Not safe to be used from several threads: once handed to the engine, only the engine's thread changes it.

    Args:
        model: Name of the model that makes its memories; a dump loads only for the same model.
        correction_window: How many of the last tracked frames can still be corrected.
        memory_policy: Which tracked frames are remembered; another one than SAM 2's holds their memories itself.

    Attributes:
        keeps_prompts: All that was ever said of the object stays: clicks, and the logits of conditioning frames. So
            frames can be corrected once the bank is brought back to them; see `masklet_server.engine.memory.snapshots`.
    """

    def __init__(
        self, model: str = "", *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    ) -> None:
        self.model = model
        self.memory_policy = memory_policy
        self.policy: Policy[Any] | None = new_policy(memory_policy)
        self.correction_window = correction_window
        self.keeps_prompts = False
        self.first_frame: int | None = None
        self.last_frame: int | None = None
        self.conditioning: dict[int, Memory] = {}
        self.recent: dict[int, Memory] = {}
        self.prompted: dict[int, Prompted] = {}
        self.clicks: dict[int, tuple[Tensor, Tensor]] = {}

    # What was tracked.

    def was_tracked(self, frame_index: int) -> bool:
        """Whether the frame lies between the first and the last tracked one."""
        if self.first_frame is None or self.last_frame is None:
            return False
        return self.first_frame <= frame_index <= self.last_frame

    def was_tracked_backward(self, frame_index: int) -> bool:
        """Never: a bank knows what was before, and nothing of what comes after."""
        return False

    def check_next(self, frame_index: int, *, reverse: bool = False) -> None:
        """Make sure that no frame is skipped and none is tracked twice.

        Raises:
            FailedPrecondition: The frame does not follow the last one, or nothing was prompted yet.
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
        """The frame has been tracked: drop what no later step, show or correction can ask for."""
        if self.first_frame is None:
            self.first_frame = frame_index
        self.last_frame = frame_index
        self._trim(frame_index)

    def keep(self, correction_window: int) -> None:
        """Let only so many of the last tracked frames be corrected, and drop what that needs no longer.

        A wider window than before holds for frames that are still to be tracked.
        """
        self.correction_window = correction_window
        if self.last_frame is not None:
            self._trim(self.last_frame)

    def _trim(self, frame_index: int) -> None:
        oldest_pointer = frame_index - NUM_RECENT_POINTERS - self.correction_window
        oldest_features = frame_index - NUM_RECENT_MEMORIES - self.correction_window
        oldest_logits = frame_index - self.correction_window
        for index in [i for i in self.recent if i <= oldest_pointer]:
            del self.recent[index]
        for memories, is_conditioning in ((self.recent, False), (self.conditioning, True)):
            keep_logits = is_conditioning and self.keeps_prompts
            for index, memory in memories.items():
                memories[index] = dataclasses.replace(
                    memory,
                    features=memory.features if is_conditioning or index > oldest_features else None,
                    logits=memory.logits if keep_logits or index > oldest_logits else None,
                )
        for index in [i for i in self.clicks if i <= oldest_logits and not self.keeps_prompts]:
            del self.clicks[index]
        if self.policy is not None:
            self.policy.forget(frame_index, self.correction_window)

    def rewind(self, frame_index: int) -> None:
        """Forget what was tracked after the frame, so that the next step tracks the frame after it again.

        Conditioning frames stay: a prompt is not undone by tracking anew. A frame before the object's first one, or the
        first one of all, may be gone back to once it is prompted: such a frame needs no step of its own.

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
        """Take over what was said of the object by the time of a later state: what rewinding from there would keep.

        Both must keep their prompts.
        """
        self.conditioning, self.clicks = dict(later.conditioning), dict(later.clicks)

    def check_correctable(self, frame_index: int) -> None:
        """Make sure that everything a correction on the frame needs is still here.

        Raises:
            InvalidArgument: The frame lies outside the correction window.
        """
        last = self.last_frame
        if last is None or not self.was_tracked(frame_index) or frame_index <= last - self.correction_window:
            raise InvalidArgument.of(
                "frame_index",
                f"frame {frame_index} is not among the last {self.correction_window} tracked frames (up to {last}), "
                "which are those that can be corrected",
            )

    # What a step reads.

    def memories_before(self, frame_index: int, *, reverse: bool = False) -> list[tuple[int, Tensor]]:
        """Memories to attend to on a frame: pairs of age (0 for conditioning frames, else 1 to 6) and features."""
        chosen = [(0, memory.features) for memory in self.conditioning.values()]
        if self.policy is not None:
            chosen += self.policy.memories_before(frame_index)
        for age in range(NUM_RECENT_MEMORIES, 0, -1):
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

    def conditioned(self, frame_index: int) -> Memory | None:
        """What a conditioning frame is remembered by; None for any other frame."""
        return self.conditioning.get(frame_index)

    def found(self, frame_index: int) -> Memory | None:
        """What is known of the object on the frame, prompted or tracked."""
        if (prompted := self.prompted.get(frame_index)) is not None:
            return prompted.memory
        return self.conditioning.get(frame_index) or self.recent.get(frame_index)

    def last_logits(self, frame_index: int) -> Tensor | None:
        """Logits ``float32[1, 4h, 4w]`` of the frame so far, to go on from with further clicks, or None."""
        memory = self.found(frame_index)
        return None if memory is None else memory.logits

    def waiting(self) -> list[int]:
        """Prompted frames whose memories are still to be encoded, corrections first as upstream does it."""
        return sorted(self.prompted, key=lambda index: self.prompted[index].is_conditioning)

    def waiting_prompt(self, frame_index: int) -> Prompted:
        """One of them."""
        return self.prompted[frame_index]

    # What a step writes.

    def add_prompted(self, frame_index: int, prompted: Prompted) -> None:
        """Note the outcome of a prompt; its memory is encoded when tracking goes on.

        Raises:
            ResourceExhausted: The object has as many conditioning frames as are allowed.
        """
        known = frame_index in self.conditioning or frame_index in self.prompted
        if prompted.is_conditioning and not known:
            check_room(len(self.conditioning) + sum(p.is_conditioning for p in self.prompted.values()))
        self.prompted[frame_index] = prompted

    def clear_prompts(self, frame_index: int) -> None:
        """Not possible: what was tracked from the prompt has been forgotten."""
        raise FailedPrecondition("a memory bank takes no prompt back")

    def consolidate(self, frame_index: int, memory: Memory) -> None:
        """Turn a prompted frame into a remembered one; a correction on a conditioning frame is dropped, as upstream."""
        prompted = self.prompted.pop(frame_index)
        if prompted.is_conditioning:
            self.conditioning[frame_index] = memory
            self.recent.pop(frame_index, None)
        if self.policy is not None:
            correction = None if prompted.is_conditioning else memory.features
            self.policy.prompted(frame_index, _shown(memory), correction)
            memory = memory if prompted.is_conditioning else dataclasses.replace(memory, features=None)
        if not prompted.is_conditioning and frame_index not in self.conditioning:
            self.recent[frame_index] = memory

    def remember(self, frame_index: int, memory: Memory) -> None:
        """Note what was found on a frame without a prompt."""
        if self.policy is not None and memory.features is not None:
            self.policy.keep(frame_index, memory.features)
            memory = dataclasses.replace(memory, features=None)
        self.recent[frame_index] = memory

    # All of it.

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors held, views counted by what they show."""
        # Lists, because another thread may ask while a step changes the books.
        prompted, clicks = list(self.prompted.values()), list(self.clicks.values())
        memories = [*self.conditioning.values(), *self.recent.values(), *(p.memory for p in prompted)]
        total = sum(tensor.nbytes for memory in memories for _, tensor in memory.tensors)
        total += sum(p.top.nbytes for p in prompted)
        total += sum(coords.nbytes + labels.nbytes for coords, labels in clicks)
        return total if self.policy is None else total + self.policy.nbytes

    @property
    def correction_nbytes(self) -> int:
        """Bytes of those that are held only so that frames can be corrected."""
        least = self.copy()
        least.keep(0)
        return self.nbytes - least.nbytes

    def copy(self) -> MemoryBank:
        """A bank that shares the tensors (which nothing changes in place) and not the books."""
        twin = MemoryBank(self.model, correction_window=self.correction_window, memory_policy=self.memory_policy)
        twin.keeps_prompts = self.keeps_prompts
        twin.restore(self)
        return twin

    def restore(self, other: MemoryBank) -> None:
        """Become what `other` is: undoes a step that failed half-way."""
        self.first_frame, self.last_frame = other.first_frame, other.last_frame
        self.conditioning, self.recent = dict(other.conditioning), dict(other.recent)
        self.prompted, self.clicks = dict(other.prompted), dict(other.clicks)
        self.policy = None if other.policy is None else other.policy.copy()

    def dump(self) -> bytes:
        """The bank as a safetensors file, with prompts that wait for the next step."""
        prompted = {index: prompted.memory for index, prompted in self.prompted.items()}
        tensors = {
            f"{kind}.{index}.{name}": tensor.contiguous().cpu()
            for kind, memories in (
                ("conditioning", self.conditioning),
                ("recent", self.recent),
                ("prompted", prompted),
            )
            for index, memory in memories.items()
            for name, tensor in memory.tensors
        }
        tensors |= {f"top.{index}.top": one.top.contiguous().cpu() for index, one in self.prompted.items()}
        for index, (coords, labels) in self.clicks.items():
            tensors[f"clicks.{index}.coords"], tensors[f"clicks.{index}.labels"] = coords.cpu(), labels.cpu()
        if self.policy is not None:
            tensors |= {f"policy.{index}.features": tensor.contiguous().cpu() for index, tensor in self.policy.tensors}
        state = {
            "format": _FORMAT,
            "model": self.model,
            "correction_window": self.correction_window,
            "first_frame": self.first_frame,
            "last_frame": self.last_frame,
            "conditioning": list(self.conditioning),  # in the order of prompting, which safetensors would sort
            "prompted": [[index, one.is_conditioning] for index, one in self.prompted.items()],
            "keeps_prompts": self.keeps_prompts,
            "policy": None if self.policy is None else self.policy.to_json(),
        }
        # One entry, because safetensors writes several in an order that changes from run to run.
        return safetensors.torch.save(tensors, metadata={"bank": json.dumps(state)})

    @classmethod
    def load(cls, data: bytes, *, model: str, device: torch.device | str = "cpu") -> MemoryBank:
        """A bank from `dump`'s bytes.

        Raises:
            InvalidArgument: These are not a bank's bytes, or it belongs to another model.
        """
        try:
            state = _read_state(data)
            tensors = safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InvalidArgument.of("bank", f"is not a dumped memory bank: {error}") from error
        if state["format"] != _FORMAT:
            raise InvalidArgument.of("bank", f"has the format {state['format']!r}, this version reads {_FORMAT!r}")
        if state["model"] != model:
            raise InvalidArgument.of("bank", f"was made by the model {state['model']!r}, not by {model!r}")
        policy = state.get("policy") or {"kind": "SAM2"}  # banks of before there were policies lack it
        if policy["kind"] not in MemoryPolicy.__members__:
            raise InvalidArgument.of("bank", f"has the memory policy {policy['kind']!r}, which this version lacks")
        memory_policy = MemoryPolicy[policy["kind"]]
        bank = cls(model, correction_window=state["correction_window"], memory_policy=memory_policy)
        bank.first_frame, bank.last_frame = state["first_frame"], state["last_frame"]
        parts: dict[tuple[str, int], dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, index, name = key.split(".")
            parts.setdefault((kind, int(index)), {})[name] = tensor.to(device)
        bank.conditioning = {i: Memory(**parts["conditioning", i]) for i in state["conditioning"]}
        bank.prompted = {
            i: Prompted(Memory(**parts["prompted", i]), parts["top", i]["top"], is_conditioning)
            for i, is_conditioning in state.get("prompted", [])
        }
        bank.keeps_prompts = state.get("keeps_prompts", False)
        in_order = sorted(parts.items())  # safetensors' own is another one each time
        bank.recent = {i: Memory(**part) for (kind, i), part in in_order if kind == "recent"}
        bank.clicks = {i: (part["coords"], part["labels"]) for (kind, i), part in in_order if kind == "clicks"}
        if bank.policy is not None:
            kept = {i: part["features"] for (kind, i), part in parts.items() if kind == "policy"}
            bank.policy.load(policy, kept)
        return bank

    def __repr__(self) -> str:
        return (
            f"MemoryBank(model={self.model!r}, tracked={self.first_frame}..{self.last_frame}, "
            f"conditioning={list(self.conditioning)}, recent={list(self.recent)}, nbytes={self.nbytes})"
        )


def check_room(conditioning_frames: int) -> None:
    """Make sure that an object with so many conditioning frames may have another one.

    Raises:
        ResourceExhausted: It has as many as are allowed.
    """
    if conditioning_frames >= MAX_CONDITIONING_FRAMES:
        raise ResourceExhausted(
            f"the object has prompts on {MAX_CONDITIONING_FRAMES} frames, the most allowed; "
            "remove it and prompt it again on this frame to go on"
        )


def _shown(memory: Memory) -> npt.NDArray[np.bool_]:
    """``bool[4h, 4w]``, the mask of a memory that has its logits."""
    assert memory.logits is not None
    mask: npt.NDArray[np.bool_] = (memory.logits[0] > 0).cpu().numpy()
    return mask


def _read_state(data: bytes) -> dict[str, Any]:
    """What `dump` wrote beside the tensors: safetensors.torch.load leaves it out."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data) - 8:
        raise ValueError("the header is cut off")
    header = json.loads(data[8 : 8 + length])
    state = json.loads(header["__metadata__"]["bank"])
    if not isinstance(state, dict):
        raise TypeError("the header holds no state")
    return state
