"""What holds for all frames of one session."""

from __future__ import annotations

from dataclasses import dataclass

from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.masks.encoding import MaskEncoding


@dataclass(frozen=True)
class TrackerOptions:
    """What holds for all frames of one session.

    Attributes:
        stream: The session's id.
        model: A loaded model.
        mask_encoding: Of the results.
        deterministic: Never batched with other streams.
        latest: Frames go on coming whether or not the client takes results, so that its silence must be noticed by
            itself.
        return_logits: Results carry logits, too.
        timings: Results say where their time went.
        memory_policy: What the objects' memories keep.
        waits_for_acks: After the last frame, wait for corrections until all results are acknowledged.
    """

    stream: str
    model: str
    mask_encoding: MaskEncoding
    deterministic: bool
    latest: bool = False
    return_logits: bool = False
    timings: bool = False
    memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    waits_for_acks: bool = False
