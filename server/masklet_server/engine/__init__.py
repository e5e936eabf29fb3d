"""SAM 2 itself: the memory bank, the batched step, the scheduler. Tensors in, tensors out."""

import ctypes
import os

# How torch's OpenMP threads wait for each other, some hundred times a frame. Where they sleep at once, a small model
# takes twice as long; where they spin for long, on a CPU shared with decoders and other streams, a thread that lost its
# core is waited for by burning the others. So they spin for some ten microseconds. "ACTIVE" is for libgomp alone to
# spin no less when more threads than cores have ever computed. Read once, when torch is loaded, which the modules of
# this package do.
if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
    os.environ.update(OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="1000")


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next layer, which wants as much again.

    It gives large blocks back to the kernel, and takes them from it anew, page by page and zeroed: half a million page
    faults a second, which took as long as the arithmetic on the largest maps. What is kept is what a frame needs at
    once. Not where the user has set one of these himself, nor with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (arena_max, 1)):
        mallopt(option, value)


_keep_freed_memory()
