"""Campaigns of molecular dynamics: one YAML → the host engines' own input files, run and resumed."""
