"""What the options of a study may be, and are unless given: all that a command line needs to know of it."""

ESTIMATORS = ("gls", "ols")
DRIFTS = ("framework", "all", "none")
HOP_LENGTH_A = 3.0
