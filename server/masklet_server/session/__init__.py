"""The life of one stream on the server."""
