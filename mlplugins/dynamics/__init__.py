"""What a run of molecular dynamics is, for every engine: settings, start structure, stages, output files."""
