"""Cameras and streams that are tracked while they run, and recordings of them."""
