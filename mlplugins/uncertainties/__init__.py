"""Uncertainty of predictions: posteriors, their calibration, and how good they are."""
