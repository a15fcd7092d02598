"""sGDML: Matérn-5/2 kernel on inverse distances, forces only, symmetrised over detected permutations."""

from dataclasses import dataclass
from typing import List

from mlplugins.models import molecular_kernel
from mlplugins.models.molecular_kernel import REFERENCES, Model

__all__ = ["REFERENCES", "TARGETS", "Hyperparameters", "Model"]

TARGETS = "forces"


@dataclass(frozen=True)
class Hyperparameters(molecular_kernel.Hyperparameters):
    """As `molecular_kernel.Hyperparameters`, with the preset's defaults."""

    descriptor: str = "inverse"
    kernel: str = "matern52"
    permutations: str | List[List[int]] = "detect"
