"""SAM 2 itself: the memory bank, the batched step, the scheduler. Tensors in, tensors out."""

import os

# How torch's OpenMP threads wait for each other, some hundred times a frame. Where they sleep at once, a small model
# takes twice as long; where they spin for long, on a CPU shared with decoders and other streams, a thread that lost its
# core is waited for by burning the others. So they spin for some ten microseconds. "ACTIVE" is for libgomp alone to
# spin no less when more threads than cores have ever computed. Read once, when torch is loaded, which the modules of
# this package do.
if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
    os.environ.update(OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="1000")
