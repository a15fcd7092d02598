"""Whether what ASE users of metatomic models may want is installed."""

from collections.abc import Iterator

from mlplugins.engines.findings import Finding, package


def diagnose() -> Iterator[Finding]:
    """metatomic's own calculator, which ours does without."""
    yield package("metatomic-ase", "pip install metatomic-ase")
