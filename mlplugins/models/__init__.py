"""Model families: one file each. A family takes plain tensors and returns per-atom quantities (see `base`)."""
