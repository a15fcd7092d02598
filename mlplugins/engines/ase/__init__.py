"""ASE: the calculator, and scripts of runs."""

from typing import Any

__all__ = ["MLCalculator"]


def __getattr__(name: str) -> Any:
    # torch is imported only when the calculator is asked for: `mlplugins doctor` works without
    if name == "MLCalculator":
        from mlplugins.engines.ase.calculator import MLCalculator

        return MLCalculator
    raise AttributeError(f"module 'mlplugins.engines.ase' has no attribute '{name}'")
