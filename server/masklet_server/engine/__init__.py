"""The engine: it runs SAM 2 for all streams of the server. Tensors in, tensors out.

- `serving`: jobs, the queue, the scheduler, and the batches that run on the device; it uses the other two
- `memory`: what objects remember
- `network`: SAM 2 as functions of tensors
"""

import ctypes
import os

# torch's OpenMP threads wait for each other some hundred times a frame. If they sleep at once, a small model takes
# twice as long. If they spin for long on a CPU that also decodes and serves other streams, and one thread has lost its
# core, the others waste theirs. So they spin for about ten microseconds. With "ACTIVE", libgomp spins as long even
# after more threads than cores have computed. Both are read once, when a module of this package loads torch.
if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
    os.environ.update(OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="1000")


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next layer, which needs as much again.

    By default, glibc returns large blocks to the kernel, and gets them again page by page, filled with zeros. That was
    half a million page faults a second, and took as long as the arithmetic on the largest maps. The kept memory is no
    more than a frame needs. Nothing is changed if the user has set one of these options, or with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (arena_max, 1)):
        mallopt(option, value)


_keep_freed_memory()
