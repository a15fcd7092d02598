"""Mean and spread of several models on one structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlplugins.quantities import Results

ROUNDING = 1e-6
"""Relative differences of forces that are those of single precision."""


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


def copies(paths: Sequence[Path], members: Sequence[Results]) -> str:
    """A sentence that names the models of a committee that are one and the same; "" if they all differ.

    Where no force and no virial acts, atoms may be so far apart that every model says the same.
    """
    groups: list[list[int]] = []
    for k, member in enumerate(members):
        if member.forces.any() or (member.virial is not None and member.virial.any()):
            group = next((g for g in groups if _alike(members[g[0]], member)), [])
            groups += [] if group else [group]
            group.append(k)
    same = [" = ".join(str(paths[k]) for k in group) for group in groups if len(group) > 1]
    if not same:
        return ""
    spread = "the spread, which is zero, is" if len(groups) == 1 else "they narrow the spread, which is"
    return (
        "models of the committee that give the same energies and forces: "
        f"{', '.join(same)}: copies of one model? Then {spread} no uncertainty; expected models trained from "
        "different seeds"
    )


def _alike(a: Results, b: Results) -> bool:
    """Whether two results differ by rounding only."""
    pairs: list[Any] = [(a.forces, b.forces), (a.virial, b.virial), (a.energy, b.energy)]
    near = [np.allclose(x, y, rtol=0, atol=ROUNDING * np.abs(x).max()) for x, y in pairs if x is not None]
    return all(near)
