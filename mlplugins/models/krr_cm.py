"""KRR-CM: Gaussian kernel on the Coulomb matrix, energies only unless `training.targets` says otherwise."""

from dataclasses import dataclass

from mlplugins.models import molecular_kernel
from mlplugins.models.molecular_kernel import REFERENCES, Model

__all__ = ["REFERENCES", "TARGETS", "Hyperparameters", "Model"]

TARGETS = "energies"


@dataclass(frozen=True)
class Hyperparameters(molecular_kernel.Hyperparameters):
    """As `molecular_kernel.Hyperparameters`, with the preset's defaults."""

    descriptor: str = "coulomb-matrix"
