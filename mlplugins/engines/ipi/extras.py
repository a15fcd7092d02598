"""Predictions for which i-PI has no field of its own: entries of its extras."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from metatomic.torch import unit_conversion_factor

from mlplugins.engines.ipi.template import ELECTRONVOLT, FORCE
from mlplugins.errors import BadInput
from mlplugins.model_file.artifact import Artifact
from mlplugins.model_file.committee import Committee
from mlplugins.quantities import ENERGY, QUANTITIES, Quantity, Results

ENERGIES = "energies"
"""Key of all energies of a model that has several, in the order of its file."""

BORN = "born_effective_charges"
SENT = frozenset(name for name, quantity in QUANTITIES.items() if quantity.ipi and name != BORN)
"""Quantities that are sent where the model predicts them; besides, Born charges are computed if asked for."""


def in_atomic_units(results: Results) -> dict[str, Any]:
    """Quantities beside energy, forces and stress by their keys: flat lists (tensors row by row), in a.u.

    `BEC`, which i-PI's driven dynamics reads, has 3N rows, one for each coordinate, of three components of
    the dipole. `energies` are all energies of a model that has several.

    >>> in_atomic_units(Results(-1.0, np.zeros((1, 3))))
    {}
    """
    extras: dict[str, Any] = {}
    energies = {name: value for name, value in (results.more or {}).items() if name.startswith(ENERGY)}
    if energies:
        extras[ENERGIES] = [ELECTRONVOLT * float(value) for value in energies.values()]
    for name, value in (results.more or {}).items():
        if name in energies:
            continue
        quantity = QUANTITIES[name]
        if quantity.ipi is not None:
            found = value * _atomic_units(quantity)
            found = found.transpose(0, 2, 1).reshape(-1, 3) if name == BORN else found.ravel()
            extras[quantity.ipi] = found.tolist()
    return extras


def all_energies(models: Sequence[Artifact]) -> frozenset[str]:
    """All energies of models that have several, and the same.

    Raises:
        BadInput: naming a model that has not.
    """
    first = models[0].energies
    for model in models:
        if len(model.energies) < 2 or model.energies != first:
            raise BadInput(
                f"energies: '{model.path.name}' has {', '.join(model.energies) or 'one energy'}: expected "
                "several, the same of all models; leave energies out"
            )
    return frozenset(first)


def of_atomic_units(name: str, value: Any, n_atoms: int) -> Any:
    """What `in_atomic_units` made of a quantity, in its own unit and shape again.

    >>> of_atomic_units("dipole", [1.0, 0.0, 0.0], 2).round(6).tolist()
    [0.529177, 0.0, 0.0]
    """
    found = np.asarray(value, dtype=float) / _atomic_units(QUANTITIES[name])
    if name == BORN:
        return found.reshape(n_atoms, 3, 3).transpose(0, 2, 1)
    return found.reshape(QUANTITIES[name].full_shape(n_atoms))


def _atomic_units(quantity: Quantity) -> float:
    """How many atomic units one unit is."""
    atomic = re.sub(r"\bA\b", "Bohr", quantity.output_unit).replace("eV", "Hartree")
    return float(unit_conversion_factor(quantity.output_unit, atomic))


def extras(committee: Committee, forces: bool, uncertainties: bool = False) -> str:
    """JSON, in atomic units, of what one or several models say beside energy, forces and virial.

    For M > 1 models: `committee_pot` (M,), `energy_uncertainty` (sample standard deviation of the M
    energies), `max_force_uncertainty` (largest standard deviation of a force component), the model deviation
    (`max_devi_v`, … `max_devi_f`, …: divided by M; the virials per atom) and, with `forces`,
    `committee_force` (M, 3N) and `committee_virial` (M, 9): the keys that `<ffcommittee>` reads. Of a model
    that predicts its uncertainty `energy_uncertainty`, and with `uncertainties` the standard deviations of
    the components of its forces, `forces_uncertainty` (3N,), and the largest, `max_force_uncertainty`.

    >>> from mlplugins.model_file.committee import combine
    >>> extras(combine([Results(-1.0, np.zeros((1, 3)))]), False)
    '{}'
    """
    energy, force = ELECTRONVOLT, FORCE
    members, found = committee.members, in_atomic_units(committee.mean)
    if len(members) == 1:
        if committee.mean.uncertainty is not None:
            found["energy_uncertainty"] = energy * committee.mean.uncertainty
        if uncertainties and committee.mean.forces_uncertainty is not None:
            deviations = force * committee.mean.forces_uncertainty
            found["max_force_uncertainty"] = float(deviations.max())
            found["forces_uncertainty"] = deviations.ravel().tolist()
        return json.dumps(found)
    found |= {
        "committee_pot": [energy * member.energy for member in members],
        "energy_uncertainty": energy * committee.energy_spread,
        "max_force_uncertainty": force * float(committee.forces_spread.max()),
    }
    for name, value in committee.deviation().columns.items():
        found[name] = value * (force if name.endswith("_f") else energy)
    if forces:
        found["committee_force"] = [(force * member.forces).ravel().tolist() for member in members]
        virials = [np.asarray(member.virial, dtype=float) for member in members]
        found["committee_virial"] = [(energy * virial).ravel().tolist() for virial in virials]
    return json.dumps(found)
