"""How a block computes: with the native library, or with weights prepared for inference; asked by type."""


class HasNativeOps:
    """A block with ops in the native library."""

    def use_native_ops(self) -> None:
        """Compute with the ops of the native library."""
        raise NotImplementedError("a block with native ops implements use_native_ops()")


class Foldable:
    """A block that can compute once what depends on its weights alone."""

    def fold(self) -> None:
        """Fold constants into the weights, once and for all: same function, faster, for inference only."""
        raise NotImplementedError("a foldable block implements fold()")
