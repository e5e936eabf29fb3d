"""What goes wrong in training through no fault of the code."""

from __future__ import annotations


class TrainingError(Exception):
    """A file, a folder or a setting is not as training needs it; the message says which and what to do."""
