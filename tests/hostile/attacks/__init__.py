"""Attacks on a real server, by hand: ``python -m tests.hostile.attacks``."""
