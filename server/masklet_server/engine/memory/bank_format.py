"""The file format of a dumped memory bank: a safetensors file, whose header holds everything that is no tensor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from masklet.errors import InvalidArgument
from masklet_server.engine.memory.object_memory import FrameMemory, PromptedFrame
from masklet_server.engine.memory.policies import MemoryPolicy

_FORMAT = "masklet-bank-1"


@dataclass(frozen=True, eq=False)
class BankContents:
    """Everything that a `MemoryBank` remembers.

    Attributes:
        state: What is no tensor, as JSON's types: the model's name, the correction window, whether prompts are kept,
            the first and the last tracked frame, and the policy's state.
        conditioning: Memories of conditioning frames by frame, in the order of prompting.
        recent: Memories of tracked frames by frame.
        prompted: Frames that are not consolidated yet.
        clicks: Points given on frames: ``float32[N, 2]`` and ``int32[N]``.
        selected: Memories ``bfloat16[M, h, w]`` that the policy holds, by frame.
    """

    state: dict[str, Any]
    conditioning: dict[int, FrameMemory]
    recent: dict[int, FrameMemory]
    prompted: dict[int, PromptedFrame]
    clicks: dict[int, tuple[Tensor, Tensor]]
    selected: dict[int, Tensor]

    @property
    def memory_policy(self) -> MemoryPolicy:
        """Which tracked frames are remembered."""
        return MemoryPolicy[self.policy_state["kind"]]

    @property
    def policy_state(self) -> dict[str, Any]:
        """The policy's own part of the state."""
        policy: dict[str, Any] = self.state.get("policy") or {"kind": "SAM2"}  # the first dumps had no policies
        return policy


def write_bank(contents: BankContents) -> bytes:
    """The bytes of a dumped bank; equal contents give equal bytes."""
    prompted = {index: prompted.memory for index, prompted in contents.prompted.items()}
    tensors = {
        f"{kind}.{index}.{name}": tensor.contiguous().cpu()
        for kind, memories in (
            ("conditioning", contents.conditioning),
            ("recent", contents.recent),
            ("prompted", prompted),
        )
        for index, memory in memories.items()
        for name, tensor in memory.tensors
    }
    tensors |= {f"top.{index}.top": one.top.contiguous().cpu() for index, one in contents.prompted.items()}
    for index, (coords, labels) in contents.clicks.items():
        tensors[f"clicks.{index}.coords"], tensors[f"clicks.{index}.labels"] = coords.cpu(), labels.cpu()
    tensors |= {f"policy.{index}.features": one.contiguous().cpu() for index, one in contents.selected.items()}
    state = {
        **contents.state,
        "format": _FORMAT,
        "conditioning": list(contents.conditioning),  # safetensors would sort them
        "prompted": [[index, one.is_conditioning] for index, one in contents.prompted.items()],
    }
    # One entry, because safetensors writes several entries in an order that changes from run to run.
    return safetensors.torch.save(tensors, metadata={"bank": json.dumps(state)})


def read_bank(data: bytes, *, model: str, device: torch.device | str = "cpu") -> BankContents:
    """The contents that `write_bank` wrote.

    Args:
        data: The bytes of a dumped bank.
        model: Name of the model that the bank must belong to.
        device: Where to put the tensors.

    Raises:
        InvalidArgument: These are not a bank's bytes, or the bank belongs to another model.
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
    parts: dict[tuple[str, int], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, index, name = key.split(".")
        parts.setdefault((kind, int(index)), {})[name] = tensor.to(device)
    in_order = sorted(parts.items())  # safetensors gives another order each time
    contents = BankContents(
        state=state,
        conditioning={i: FrameMemory(**parts["conditioning", i]) for i in state["conditioning"]},
        recent={i: FrameMemory(**part) for (kind, i), part in in_order if kind == "recent"},
        prompted={
            i: PromptedFrame(FrameMemory(**parts["prompted", i]), parts["top", i]["top"], is_conditioning)
            for i, is_conditioning in state.get("prompted", [])
        },
        clicks={i: (part["coords"], part["labels"]) for (kind, i), part in in_order if kind == "clicks"},
        selected={i: part["features"] for (kind, i), part in in_order if kind == "policy"},
    )
    if contents.policy_state["kind"] not in MemoryPolicy.__members__:
        kind = contents.policy_state["kind"]
        raise InvalidArgument.of("bank", f"has the memory policy {kind!r}, which this version lacks")
    return contents


def _read_state(data: bytes) -> dict[str, Any]:
    """The header's own part, which `safetensors.torch.load` leaves out."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data) - 8:
        raise ValueError("the header is cut off")
    header = json.loads(data[8 : 8 + length])
    state = json.loads(header["__metadata__"]["bank"])
    if not isinstance(state, dict):
        raise TypeError("the header holds no state")
    return state
