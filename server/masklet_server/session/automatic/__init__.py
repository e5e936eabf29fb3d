"""Tracking each frame once, as it comes, with corrections of frames that were tracked."""
