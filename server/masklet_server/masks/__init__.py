"""Masks as they travel: run-lengths, PNG, boxes, areas."""
