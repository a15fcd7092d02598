"""Mean and spread of several models on one structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlplugins.quantities import Results


@dataclass(frozen=True)
class Committee:
    """Mean and spread of several models on one structure.

    Attributes:
        mean: mean of energies, forces, stress, …
        members: results of each model.
        energy_spread: sample standard deviation (M − 1) of the energy over the M models, eV; 0 for one model.
        forces_spread: the same of each force component, (N, 3), eV/Å.
    """

    mean: Results
    members: tuple[Results, ...]
    energy_spread: float
    forces_spread: np.ndarray


def combine(members: Sequence[Results]) -> Committee:
    """Mean and sample standard deviation over the models, for one structure."""
    first = members[0]
    if len(members) == 1:
        return Committee(first, tuple(members), 0.0, np.zeros(first.forces.shape))
    energies = np.array([member.energy for member in members])
    forces = np.stack([member.forces for member in members])
    mean = Results(
        float(energies.mean()),
        forces.mean(axis=0),
        _mean([member.virial for member in members]),
        _mean([member.stress for member in members]),
        _mean([member.energies for member in members]),
        _mean([member.virials for member in members]),
        more={name: _mean([member.get(name) for member in members]) for name in first.more or ()} or None,
    )
    return Committee(mean, tuple(members), float(energies.std(ddof=1)), forces.std(axis=0, ddof=1))


def _mean(arrays: list[Any]) -> Any:
    return None if any(array is None for array in arrays) else np.mean(arrays, axis=0)
