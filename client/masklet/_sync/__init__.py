"""The client for ordinary programs: calls block until there is an answer."""
