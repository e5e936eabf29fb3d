"""Jobs, the queue before the device, and the batches that run on it."""
