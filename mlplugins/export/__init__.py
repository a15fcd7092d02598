"""The name of `model_file` in scripts of 0.1.0."""
