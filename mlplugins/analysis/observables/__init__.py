"""One file per observable: results beyond D, σ and H. `base` is the contract."""
