"""KREG: Gaussian kernel on r_eq/r (`molecular_kernel` with its defaults), energies and forces."""

from mlplugins.models.molecular_kernel import REFERENCES, Hyperparameters, Model

__all__ = ["REFERENCES", "TARGETS", "Hyperparameters", "Model"]

TARGETS = "energies+forces"
