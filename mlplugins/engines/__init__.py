"""Host engines: one file each; every one consumes a `model.pt`, never a model class."""
