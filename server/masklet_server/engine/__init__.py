"""SAM 2 itself: the memory bank, the batched step, the scheduler. Tensors in, tensors out."""

import os

# torch's OpenMP threads spin while they wait for each other. On a CPU that is shared with decoders and other streams, a
# thread that lost its core is then waited for by burning the other cores, and steps are slower and stall at times. Read
# once, when torch is loaded, which the modules of this package do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
