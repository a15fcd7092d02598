"""Host engines: one folder each; every one consumes a `model.pt`, never a model class."""
