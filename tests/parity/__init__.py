"""masklet held against Meta's own predictor."""
