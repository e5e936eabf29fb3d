"""masklet: follow objects through video with SAM 2, over gRPC."""
