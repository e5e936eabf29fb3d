"""Sources: each gives the frames of one video, which a sandboxed process decodes."""
