"""The edge: gRPC messages to domain objects and back."""
