"""Predictions for which i-PI has no field of its own: entries of its extras."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from metatomic.torch import unit_conversion_factor

from mlplugins.engines.ipi.template import ELECTRONVOLT, FORCE
from mlplugins.model_file.committee import Committee
from mlplugins.quantities import QUANTITIES, Results

SENT = frozenset(name for name, quantity in QUANTITIES.items() if quantity.ipi is not None)
"""Quantities that are sent where the model predicts them; no others are computed."""


def in_atomic_units(results: Results) -> dict[str, Any]:
    """Quantities beside energy, forces and stress by their keys: flat lists (tensors row by row), in a.u.

    >>> in_atomic_units(Results(-1.0, np.zeros((1, 3))))
    {}
    """
    extras: dict[str, Any] = {}
    for name, value in (results.more or {}).items():
        quantity = QUANTITIES[name]
        if quantity.ipi is not None:
            atomic = re.sub(r"\bA\b", "Bohr", quantity.unit).replace("eV", "Hartree")
            extras[quantity.ipi] = (value * unit_conversion_factor(quantity.unit, atomic)).ravel().tolist()
    return extras


def extras(committee: Committee, forces: bool) -> str:
    """JSON, in atomic units, of what one or several models say beside energy, forces and virial.

    For M > 1 models: `committee_pot` (M,), `energy_uncertainty` (sample standard deviation of the M
    energies), `max_force_uncertainty` (largest standard deviation of a force component), the model deviation
    (`max_devi_v`, … `max_devi_f`, …: divided by M; the virials per atom) and, with `forces`,
    `committee_force` (M, 3N) and `committee_virial` (M, 9): the keys that `<ffcommittee>` reads. Of a model
    that predicts its uncertainty `energy_uncertainty`.

    >>> from mlplugins.model_file.committee import combine
    >>> extras(combine([Results(-1.0, np.zeros((1, 3)))]), False)
    '{}'
    """
    energy, force = ELECTRONVOLT, FORCE
    members, found = committee.members, in_atomic_units(committee.mean)
    if len(members) == 1:
        if committee.mean.uncertainty is not None:
            found["energy_uncertainty"] = energy * committee.mean.uncertainty
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
