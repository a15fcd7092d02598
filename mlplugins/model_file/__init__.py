"""model.pt: its format, what stands in it, loading and evaluating it."""
