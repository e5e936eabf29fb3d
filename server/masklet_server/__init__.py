"""The masklet server."""
