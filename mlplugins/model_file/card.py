"""What is known of a model besides its weights: the same record from checkpoint to model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RADIAL = "radial_tables"
"""In the record of a file: how it computes its radial functions (`tables.RadialFunctions`)."""


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
        baselines: the same as `baseline` of further energies, by their names (`scan` of `energy/scan`).

    >>> ModelCard("nequip", ["Ar"], [-1.5], details={"hyperparameters": {"cutoff": 4.5}}).hyperparameters
    {'cutoff': 4.5}
    """

    family: str
    elements: list[str]
    baseline: list[float]
    name: str = "mlplugins model"
    details: dict[str, Any] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)
    baselines: dict[str, list[float]] = field(default_factory=dict)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the family's model is built from."""
        found: dict[str, Any] = self.details["hyperparameters"]
        return found

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The terms of a `sum` or members of a `committee`, each with its `family`; none of another model."""
        return parts(self.family, self.hyperparameters)

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


def parts(family: str | None, hyperparameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The terms of a `sum` or members of a `committee`, by what it was built from; none of another model.

    >>> parts("sum", {"terms": [{"family": "zbl"}]}), parts("nequip", {"cutoff": 5.0})
    ([{'family': 'zbl'}], [])
    """
    found = hyperparameters.get({"sum": "terms", "committee": "members"}.get(family or "", ""))
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []


NO_ENERGIES = {"energies": "none"}
"""In the record of a fine-tuning whose base has none."""


def has_no_energy(details: Mapping[str, Any]) -> bool:
    """Whether a training record says that no energies were learned, so that energy and forces are zero.

    >>> has_no_energy({"configuration": {"data": {"keys": {"energy": None}}}}), has_no_energy({})
    (True, False)
    >>> has_no_energy({"configuration": {"data": {"keys": {"energy": None, "forces": "forces"}}}})
    False
    >>> more = {"configuration": {"data": {"keys": {"energy": None}}}, "finetune": {"strategy": "heads"}}
    >>> has_no_energy(more), has_no_energy({**more, "finetune": {"energies": "none"}})
    (False, True)
    """
    place: Any = details.get("configuration")
    for name in ("data", "keys"):
        place = place.get(name) if isinstance(place, Mapping) else None
    none = isinstance(place, Mapping) and "energy" in place
    none = none and all(place.get(name) is None for name in ("energy", "forces", "stress"))
    return none and details.get("finetune", NO_ENERGIES).items() >= NO_ENERGIES.items()


def repels(hyperparameters: Mapping[str, Any]) -> bool:
    """Whether a model, or a term of it, holds a screened nuclear repulsion, by what it was built from.

    >>> repels({"terms": [{"family": "nequip", "zbl": False}, {"family": "zbl"}]}), repels({"cutoff": 5.0})
    (True, False)
    """
    inside = [*(hyperparameters.get("terms") or []), *(hyperparameters.get("members") or [])]
    return (
        bool(hyperparameters.get("zbl")) or hyperparameters.get("family") == "zbl" or any(map(repels, inside))
    )
