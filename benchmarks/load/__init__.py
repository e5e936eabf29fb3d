"""A load of real clients: who comes when, what each does, and what they saw of it."""
