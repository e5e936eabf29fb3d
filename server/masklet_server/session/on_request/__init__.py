"""Tracking when the client asks for it, from any frame, in either direction."""
