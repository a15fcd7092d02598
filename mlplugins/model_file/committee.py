"""What several models say of one structure: mean, spread, and DeePMD-kit's model deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mlplugins.errors import BadInput
from mlplugins.model_file.structure import Array
from mlplugins.quantities import Results

ROUNDING = 1e-6
"""Relative differences of forces that are those of single precision."""
ANOTHER_ZERO_EV, PER_DEVIATION = 0.2, 5.0
"""Energies of models differ by this much per atom and by so many times what their forces (eV/Å) and virials
per atom (eV) differ by, where they count from different zeros: models of one level of theory err together."""


@dataclass(frozen=True)
class ModelDeviation:
    """How far M models are apart; **standard deviations divided by M**, as in DeePMD-kit's `model_devi.out`.

    With f_i^m the force on atom i in model m, D_i = √(1/M Σ_m ‖f_i^m − f̄_i‖²).

    Attributes:
        max_devi_v, min_devi_v: largest and smallest standard deviation of a component of the virial, eV per
            atom.
        avg_devi_v: root mean square of the nine.
        max_devi_f, min_devi_f, avg_devi_f: largest, smallest and mean D_i, eV/Å.
        devi_f: (N,) D_i, eV/Å.
    """

    max_devi_v: float
    min_devi_v: float
    avg_devi_v: float
    max_devi_f: float
    min_devi_f: float
    avg_devi_f: float
    devi_f: Array

    @property
    def columns(self) -> dict[str, float]:
        """The six columns of the file, by name."""
        names = [field.name for field in fields(self) if field.name != "devi_f"]
        return {name: getattr(self, name) for name in names}


DEVIATIONS = tuple(field.name for field in fields(ModelDeviation))
"""Names of all of them, the last one per atom."""


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
    forces_spread: Array

    @property
    def energies_spread(self) -> Array | None:
        """The same of the energy of each atom, (N,), eV; None for one model, or without such energies."""
        energies = [member.energies for member in self.members if member.energies is not None]
        if len(energies) < max(2, len(self.members)):
            return None
        spread: Array = np.std(energies, axis=0, ddof=1)
        return spread

    def deviation(self, relative: float | None = None, relative_v: float | None = None) -> ModelDeviation:
        """The model deviation.

        Args:
            relative: ε, eV/Å: D_i / (‖f̄_i‖ + ε) in place of D_i.
            relative_v: ε, eV per atom: likewise of each component of the virial.

        Raises:
            BadInput: an ε that is not positive.

        >>> members = [Results(0.0, np.array([[x, 0.0, 0.0]]), np.diag([x, 0.0, 0.0])) for x in (1.0, 3.0)]
        >>> combine(members).deviation().columns["max_devi_f"], combine(members).deviation(2.0).devi_f
        (1.0, array([0.25]))
        """
        for name, value in {"relative": relative, "relative_v": relative_v}.items():
            if value is not None and not 0 < value < np.inf:
                raise BadInput(f"model deviation: {name}: expected a positive number, got {value!r}")
        forces = np.stack([member.forces for member in self.members])
        virials = np.array([np.asarray(member.virial, dtype=float).ravel() for member in self.members])
        virials = virials / max(forces.shape[1], 1)
        atoms = np.linalg.norm(forces.std(axis=0), axis=1)
        if relative is not None:
            atoms = atoms / (np.linalg.norm(forces.mean(axis=0), axis=1) + relative)
        parts = virials.std(axis=0)
        if relative_v is not None:
            parts = parts / (np.abs(virials.mean(axis=0)) + relative_v)
        return ModelDeviation(
            max_devi_v=float(parts.max()),
            min_devi_v=float(parts.min()),
            avg_devi_v=float(np.sqrt(np.mean(parts**2))),
            max_devi_f=float(atoms.max()),
            min_devi_f=float(atoms.min()),
            avg_devi_f=float(atoms.mean()),
            devi_f=atoms,
        )


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


def zeros(paths: Sequence[Path], members: Sequence[Results]) -> str:
    """A sentence that names models whose energies count from another zero than those of the first; "" if none
    do.

    >>> forces = np.array([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
    >>> members = [Results(-8.0, forces), Results(-8.1, 0.9 * forces), Results(-14.0, 0.8 * forces)]
    >>> zeros([Path("a.pt"), Path("b.pt"), Path("c.pt")], members).partition("expect ")[2][:37]
    '(c.pt by -3 eV per atom from a.pt): m'
    """
    first = members[0]
    n = max(len(first.forces), 1)
    apart = [(member.energy - first.energy) / n for member in members]
    found = {}
    for path, member, energy in zip(paths, members, apart):
        forces = (
            float(np.sqrt(np.mean((member.forces - first.forces) ** 2) * 3)) if len(first.forces) else 0.0
        )
        virial = 0.0
        if member.virial is not None and first.virial is not None:
            virial = float(np.abs(np.asarray(member.virial) - first.virial).max()) / n
        if abs(energy) > ANOTHER_ZERO_EV + PER_DEVIATION * (forces + virial):
            found[str(path)] = energy
    if not found:
        return ""
    named = ", ".join(f"{path} by {energy:.3g} eV per atom" for path, energy in found.items())
    return (
        "energies of the models differ by far more than their forces let expect "
        f"({named} from {paths[0]}): models of several levels of theory or settings, or of other "
        "compositions than this one? Their mean energy is that of nothing, and energy_uncertainty is this "
        "constant; forces and their deviations may be used; expected models that learned the same data from "
        "different seeds"
    )
