"""Masks in messages: run-lengths, PNG, boxes and areas."""
