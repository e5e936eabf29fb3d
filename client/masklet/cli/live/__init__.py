"""`masklet track` with cameras, network streams and pipes."""
