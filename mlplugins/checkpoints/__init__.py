"""Checkpoint formats: one file each, from a file to a model and its description."""
