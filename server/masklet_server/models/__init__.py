"""Models by name: their configurations, checkpoints and checksums, and the trunk of nano."""
