"""Machine-learned interatomic potentials in the engines people already use: ASE, LAMMPS and i-PI."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("mlplugins")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["MLCalculator", "__version__"]


def __getattr__(name: str) -> Any:
    # torch and ASE are imported only when the calculator is asked for
    if name == "MLCalculator":
        from mlplugins.engines.ase.calculator import MLCalculator

        return MLCalculator
    raise AttributeError(f"module 'mlplugins' has no attribute '{name}'")
