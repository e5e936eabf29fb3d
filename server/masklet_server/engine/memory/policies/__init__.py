"""Which tracked frames an object remembers, and which of the mask decoder's candidates it takes.

SAM 2 remembers the last six frames, whatever they show: after six frames behind a tree it remembers only the tree. Two
published remedies need no training. Both are here, written from their papers: `distractor_aware` and `motion_aware`.

To add a policy:

1. write a subclass of `Policy` in a module of its own in this folder;
2. give it a member of `MemoryPolicy` (`policy.py`) and a line in `new_policy` (below);
3. give it a value of `MemoryPolicy` in `protos/masklet/v1/tracking.proto`, and a line in `rpc/from_wire.py`.
"""

from masklet_server.engine.memory.policies.distractor_aware import DistractorAware
from masklet_server.engine.memory.policies.motion_aware import MotionAware
from masklet_server.engine.memory.policies.policy import (
    MAX_SELECTED,
    Candidates,
    MemoryPolicy,
    Policy,
    SelectedMemory,
    mask_box,
)

__all__ = [
    "MAX_SELECTED",
    "Candidates",
    "DistractorAware",
    "MemoryPolicy",
    "MotionAware",
    "Policy",
    "SelectedMemory",
    "mask_box",
    "new_policy",
]


def new_policy(kind: MemoryPolicy) -> DistractorAware | MotionAware | None:
    """A new object's policy; None for SAM 2's own rule, which the memory bank follows itself."""
    match kind:
        case MemoryPolicy.SAM2:
            return None
        case MemoryPolicy.DISTRACTOR_AWARE:
            return DistractorAware()
        case MemoryPolicy.MOTION_AWARE:
            return MotionAware()
