"""Pictures: sam2's image predictor and its automatic masks."""
