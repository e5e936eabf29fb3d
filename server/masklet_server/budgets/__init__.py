"""What clients share, and how it is shared: turns, disk, and the memory of decoders."""
