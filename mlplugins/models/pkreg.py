"""pKREG: KREG summed over the permutations of equivalent atoms."""

from dataclasses import dataclass
from typing import List

from mlplugins.models import molecular_kernel
from mlplugins.models.molecular_kernel import REFERENCES, Model

__all__ = ["REFERENCES", "TARGETS", "Hyperparameters", "Model"]

TARGETS = "energies+forces"


@dataclass(frozen=True)
class Hyperparameters(molecular_kernel.Hyperparameters):
    """As `molecular_kernel.Hyperparameters`, with the preset's defaults."""

    permutations: str | List[List[int]] = "detect"
