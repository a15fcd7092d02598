"""What is known of a model besides its weights: the same record from checkpoint to model file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "float64": torch.float64}
"""Precisions that a model computes in."""


@dataclass(frozen=True)
class ModelCard:
    """What a file says about its model.

    Attributes:
        family: name of the model family, e.g. `nequip`.
        elements: symbols in the order of the species index.
        baseline: composition energy per atom of each element, eV.
        name: title of the model.
        details: JSON-able training record: `hyperparameters`, hash of the data, `versions`, `source` (file
            that the model was read from), …
        references: papers to cite for the architecture.

    >>> ModelCard("nequip", ["Ar"], [-1.5], details={"hyperparameters": {"cutoff": 4.5}}).hyperparameters
    {'cutoff': 4.5}
    """

    family: str
    elements: list[str]
    baseline: list[float]
    name: str = "mlplugins model"
    details: dict[str, Any] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the family's model is built from."""
        found: dict[str, Any] = self.details["hyperparameters"]
        return found

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The terms of a `sum`, each with its `family`; none of another model."""
        return list(self.hyperparameters["terms"]) if self.family == "sum" else []

    @property
    def stated(self) -> dict[str, Any]:
        """Authors, licence and papers of the model, as the section `export` of its configuration says."""
        configuration = self.details.get("configuration")
        found = configuration.get("export") if isinstance(configuration, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def source(self) -> dict[str, Any]:
        """Format, name and hash of the file that the model was read from."""
        found: dict[str, Any] = self.details["source"]
        return found
