"""SAM 2 as functions of tensors, and the kernels that compute it."""
