"""Videos and cameras: sam2's video predictor and that of its fork for cameras."""
