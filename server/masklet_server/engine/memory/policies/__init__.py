"""Which tracked frames an object remembers, and which of the mask decoder's candidates it takes.

SAM 2 remembers the last six frames (nano the last three), even if they do not show the object: after six frames behind
a tree it remembers only the tree. Two published remedies need no training. Both are here, written from their papers:
`distractor_aware` and `motion_aware`.

docs/explanation/add-a-memory-policy.md explains how to add one.
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


def new_policy(kind: MemoryPolicy, most: int = MAX_SELECTED) -> DistractorAware | MotionAware | None:
    """A new object's policy that selects `most` frames; None for SAM 2's own rule, which the bank follows itself."""
    match kind:
        case MemoryPolicy.SAM2:
            return None
        case MemoryPolicy.DISTRACTOR_AWARE:
            return DistractorAware(most)
        case MemoryPolicy.MOTION_AWARE:
            return MotionAware(most)
