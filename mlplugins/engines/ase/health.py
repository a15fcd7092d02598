"""Optional packages for ASE users of metatomic models."""

from collections.abc import Iterator

from mlplugins.engines.findings import Finding, package


def diagnose() -> Iterator[Finding]:
    """metatomic's own calculator, which ours does not need."""
    yield package("metatomic-ase", "pip install metatomic-ase")
