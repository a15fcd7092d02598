"""Model families, one file each: plain tensors in, per-atom quantities out (see `base`)."""
