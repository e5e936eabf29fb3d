"""Snapshots that survive the server."""
