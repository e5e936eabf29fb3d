"""Snapshots of sessions that survive the server: their format, who may write them, and where they lie."""
