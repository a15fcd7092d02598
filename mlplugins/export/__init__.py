"""Writing a model family as one `model.pt` (metatomic)."""
