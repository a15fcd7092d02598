"""One file per host engine: how its input files are written, where a run stands, what to start next."""
