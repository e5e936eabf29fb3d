"""The server: gRPC, sessions, video and SAM 2."""
