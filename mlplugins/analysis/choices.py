"""Allowed values and defaults of the options of a study: all that the command line needs to know."""

ESTIMATORS = ("gls", "ols")
DRIFTS = ("framework", "all", "none")
HOP_LENGTH_A = 3.0
