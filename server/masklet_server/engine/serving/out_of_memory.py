"""Missing memory, on the device or on the machine, as an error that says what to do."""

from __future__ import annotations

import torch

from masklet.errors import ResourceExhausted

OUT_OF_MEMORY_ADVICE = "use a smaller model, fewer objects or fewer streams at once"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no memory left; torch has no class of its own for CPUs."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def as_answer(error: Exception) -> Exception:
    """The error that a caller gets: `ResourceExhausted` with advice for missing memory, others as they are."""
    if is_out_of_memory(error):
        answer = ResourceExhausted(f"the device ran out of memory on this request; {OUT_OF_MEMORY_ADVICE}")
        answer.__cause__ = error
        return answer
    return error
