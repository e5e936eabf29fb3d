"""SAM 2 itself: the memory bank, the batched step, the scheduler. Tensors in, tensors out."""
