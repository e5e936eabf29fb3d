"""`masklet batch` and what it prints."""
