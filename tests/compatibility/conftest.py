"""`make.py` runs with the package of 0.1.0 only."""

collect_ignore = ["make.py"]
