"""Trajectory formats, one file per format: `matches(path, head)` and `read(path, options)`, found
by file name."""
