"""One file per observable: what a report says beyond D, σ and H. `base` is the contract."""
