"""Snapshots of automatic sessions: what is in them, when they are made, and how a session goes on from one."""
