"""Which worker takes a stream."""
