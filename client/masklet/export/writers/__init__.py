"""One module for each format: its function `write` takes a recording, a path and settings."""
