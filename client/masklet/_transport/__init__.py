"""The connection to a server: addresses, TLS, the gRPC channel, and what its failures mean."""
