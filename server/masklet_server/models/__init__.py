"""Models by name: configuration, checkpoint, checksum, trunk."""
