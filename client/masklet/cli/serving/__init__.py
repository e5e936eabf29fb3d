"""Commands that answer the requests of other tools until they are ended."""
