"""One video that is worked on: its tabs, its verbs, and its annotation session on the server."""
