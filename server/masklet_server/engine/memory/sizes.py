"""How much memory tracking takes with a model, so that there can be enough of it before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from masklet_server.engine.memory.object_memory import NUM_RECENT_POINTERS

# Widths of an object score and of a predicted IoU, and of logits and of memory features, in bytes.
_SCORE_BYTES = 8
_LOGIT_BYTES = 4
_FEATURE_BYTES = 2


@dataclass(frozen=True)
class MemorySizes:
    """What tracking takes of memory with one model, in bytes. What corrections need comes on top of it.

    Attributes:
        stream: Features of the frames that a stream keeps, whatever the number of its objects.
        tracked_object: What an object takes beside its conditioning frames.
        conditioning_frame: One conditioning frame of an object, with the logits that further clicks refine.
    """

    stream: int = 0
    tracked_object: int = 0
    conditioning_frame: int = 0

    @classmethod
    def of(
        cls,
        grid_size: int,
        channels: int,
        memory_channels: int,
        item_bytes: int,
        *,
        frames: int,
        recent_memories: int,
    ) -> MemorySizes:
        """The sizes for a model.

        Args:
            grid_size: h = w, the side of the feature map.
            channels: C, the model's width.
            memory_channels: M, the width of a memory.
            item_bytes: Bytes of a number in the model's dtype.
            frames: Frames whose features a stream keeps.
            recent_memories: Memories of tracked frames that a step attends to.
        """
        cells = grid_size**2
        top = channels * cells * item_bytes
        small = channels * item_bytes + _SCORE_BYTES
        features, logits = memory_channels * cells * _FEATURE_BYTES, 16 * cells * _LOGIT_BYTES
        return cls(
            # `Features`: top, two finer levels of twice and once its size, and the part that objects have in common.
            stream=5 * top * frames,
            # The last frame still has its logits. A frame that was just prompted keeps its features until the memory is
            # encoded. A policy that selects frames has one memory more.
            tracked_object=(recent_memories + 1) * features + NUM_RECENT_POINTERS * small + logits + top,
            conditioning_frame=features + small + logits,
        )
