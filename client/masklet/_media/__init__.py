"""Pictures, videos and cameras on the client's machine: reading, decoding, and writing them."""
