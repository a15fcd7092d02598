"""Modes of a block: native ops, or weights folded for inference; queried by type."""


class HasNativeOps:
    """A block with ops in the native library."""

    def use_native_ops(self) -> None:
        """Compute with the ops of the native library."""
        raise NotImplementedError("a block with native ops implements use_native_ops()")


class Foldable:
    """A block that can precompute what depends on its weights only."""

    def fold(self) -> None:
        """Fold constants into the weights, once and for all: same function, faster, for inference only."""
        raise NotImplementedError("a foldable block implements fold()")
