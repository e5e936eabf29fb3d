"""Clips with their truth, drawn on the fly: every one is a function of the cache, a seed and its number."""
