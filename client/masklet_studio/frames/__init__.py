"""Frames of a video by their number, decoded in a process of their own."""
