"""Decoding processes, seen from the server: starting, feeding, watching and ending them."""
