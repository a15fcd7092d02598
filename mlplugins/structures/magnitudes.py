"""Magnitudes that physics knows: total energies of atoms, stiffness of bonds, energies that grow with size.

They tell the units of a set that is consistent in itself, as one in atomic units is, and need no frames that
are close to each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from mlplugins import units
from mlplugins.elements import symbol
from mlplugins.structures.dataset import Structure
from mlplugins.structures.neighbors import neighbor_list

ENERGY_UNITS = {
    "hartree": 1.0,
    "kcal/mol": units.EV_PER_HARTREE / units.EV_PER_KCAL_MOL,
    "kJ/mol": 4.184 * units.EV_PER_HARTREE / units.EV_PER_KCAL_MOL,
}
NEAR, HEAVIEST = 0.06, 10
"""How well the formula of total energies holds, and the atomic number to which no pseudopotential in eV has
energies like it."""

FRAMES, FEWEST, CLEAR = 60, 12, 6.0
"""Frames looked at; bonds of one kind and standard errors of their stiffness that make it known."""
BOND = 1.3
"""Distance over the sum of the covalent radii up to which two atoms are bonded."""
FIRST_ROW = (1, 6, 7, 8, 9)
NON_METALS = (*FIRST_ROW, 5, 14, 15, 16, 17, 33, 34, 35, 53)
SOFT = (10, 18, 19, 36, 37, 54, 55, 86)
SOFT_METALS = (3, 11, 12, 20, 30, 38, 48, 49, 50, 56, 80, 81, 82, 83)
RANGES = {"covalent": (8.0, 600.0), "non-metals": (2.0, 300.0), "any": (0.4, 150.0), "soft": (0.12, 60.0)}
"""Stiffness (eV/Å²) of bonds of non-metals, one of them of the first row (23 to 150 in molecules), of other
non-metals (Si 6, P–S 23), of all others (salts 2 to 4, Cu 2, Ni 4), and of soft metals (Li 1)."""


PER_ATOM = 0.3
"""Exponent of the energy's growth with the number of atoms below which it is one per atom."""


def total_energy(number: int) -> float:
    """All-electron energy of an atom in hartree, −0.768745 Z^(7/3) + Z²/2 − 0.2699 Z^(5/3).

    J. Schwinger, Phys. Rev. A 22, 1827 (1980); 24, 2353 (1981). Exact to 1 % from carbon on.

    >>> round(total_energy(8), 1)  # Hartree–Fock: −74.8
    -75.0
    """
    return -0.768745 * number ** (7 / 3) + 0.5 * number**2 - 0.2699 * number ** (5 / 3)


def check(structures: Sequence[Structure]) -> list[str]:
    """Warnings about magnitudes that eV and eV/Å do not have."""
    notes = [_total_energies(structures), _stiffness(structures), _growth(structures)]
    return [note for note in notes if note]


def _total_energies(structures: Sequence[Structure]) -> str | None:
    frames = [s for s in structures if s.energy is not None and s.numbers.max() > 4]
    if not frames or max(int(s.numbers.max()) for s in frames) > HEAVIEST:
        return None
    expected = np.array([sum(total_energy(int(z)) for z in s.numbers) for s in frames])
    ratio = np.array([s.energy for s in frames]) / expected
    for name, factor in ENERGY_UNITS.items():
        if np.all(np.abs(ratio / factor - 1) < NEAR):
            return (
                f"the energies are {np.median(ratio / factor):.3f} times the sums of the all-electron "
                f"energies of their atoms in {name}: total energies in {name} (or energies per atom)? "
                "Expected eV of the whole structure, and forces in eV/Å"
            )
    return None


def bond_stiffness(structures: Sequence[Structure]) -> dict[tuple[int, int], float]:
    """For every kind of bond the slope of the force along it with its length, negative, eV/Å².

    It is the slope of (F_j − F_i)·r̂ with r over all such bonds of the set, twice the force constant of a
    diatomic molecule. Both are taken from their means over the frames of the same bond: bonds of other
    phases and orders differ in length without any force. Kinds that the frames do not determine are left out.
    """
    frames = [(s, s.forces) for s in structures if s.forces is not None and len(s) > 1]
    found: dict[tuple[int, int], dict[tuple[Any, ...], list[tuple[float, float]]]] = {}
    for s, forces in frames[:: max(1, math.ceil(len(frames) / FRAMES))]:
        for kind, bond, row in _bonds(s, forces):
            found.setdefault(kind, {}).setdefault(bond, []).append(row)
    slopes = {kind: _slope(rows) for kind, rows in found.items()}
    return {kind: slope for kind, slope in slopes.items() if slope is not None}


def _bonds(
    s: Structure, forces: NDArray[np.float64]
) -> Iterator[tuple[tuple[int, int], tuple[Any, ...], tuple[float, float]]]:
    """Kind, name among the frames of the same atoms, length and force along it, of every bond, once."""
    radii = covalent_radii[s.numbers]
    edges = neighbor_list(s.positions, s.cell, s.pbc, 2 * BOND * float(radii.max()))
    length = np.linalg.norm(edges.vectors, axis=1)
    bonded = length < BOND * (radii[edges.centers] + radii[edges.neighbors])
    # as many bonds per atom: another phase of the same atoms has bonds of the same names
    system = s.numbers.tobytes(), round(bonded.sum() / len(s))
    bonded &= edges.centers < edges.neighbors
    i, j, r = edges.centers[bonded], edges.neighbors[bonded], length[bonded]
    along = np.einsum("ea,ea->e", forces[j] - forces[i], edges.vectors[bonded]) / r
    kinds = np.sort(np.stack([s.numbers[i], s.numbers[j]], axis=1), axis=1).tolist()
    names = np.column_stack([i, j, edges.shifts[bonded]]).tolist()
    for kind, name, row in zip(kinds, names, zip(r.tolist(), along.tolist())):
        yield tuple(kind), (system, *name), row


def _slope(bonds: Mapping[tuple[Any, ...], Sequence[tuple[float, float]]]) -> float | None:
    """−slope, if it is known to one part in `CLEAR`."""
    x, y = np.concatenate([np.array(rows) - np.mean(rows, axis=0) for rows in bonds.values()]).T
    n = len(x) - len(bonds)
    xx, yy, xy = x @ x, y @ y, x @ y
    if n < FEWEST or xx < 1e-6 * n or xy >= 0:
        return None
    left = max(1 - xy * xy / (xx * yy), 0.0)
    return float(-xy / xx) if xy * xy / (xx * yy) * n > CLEAR**2 * left else None


def _stiffness(structures: Sequence[Structure]) -> str | None:
    """Bonds that are all too soft, or all too stiff: another unit of the forces."""
    found = {kind: slope for kind, slope in bond_stiffness(structures).items() if not set(kind) & set(SOFT)}
    if not found:
        return None
    if all(slope < _range(kind)[0] for kind, slope in found.items()):
        how, guess = "soft", "hartree/bohr (51.4 eV/Å), hartree/Å (27.2) or Ry/bohr (25.7)"
    elif all(slope > _range(kind)[1] for kind, slope in found.items()):
        how, guess = "stiff", "kcal/mol/Å (0.0434 eV/Å), kJ/mol/Å (0.0104) or meV/Å"
    else:
        return None
    kind = max(found, key=lambda kind: found[kind])
    low, high = _range(kind)
    return (
        f"the forces make bonds impossibly {how}: {'–'.join(map(symbol, kind))} has {found[kind]:.3g} eV/Å² "
        f"(force along the bond against its length), expected {low:g} to {high:g}: "
        f"forces in {guess}, and the energies likewise? Expected eV/Å and eV"
    )


def _range(kind: tuple[int, int]) -> tuple[float, float]:
    if set(kind) <= set(SOFT_METALS):
        return RANGES["soft"]
    if not set(kind) <= set(NON_METALS):
        return RANGES["any"]
    return RANGES["covalent" if set(kind) & set(FIRST_ROW) else "non-metals"]


def _growth(structures: Sequence[Structure]) -> str | None:
    """Energies that stay the same where the same material has more atoms."""
    groups: dict[tuple[int, ...], list[Structure]] = {}
    for s in structures:
        if s.energy is not None and len(s) > 1:
            counts = np.bincount(s.numbers)
            groups.setdefault(tuple((counts / math.gcd(*counts.tolist())).astype(int)), []).append(s)
    exponents = []
    for group in groups.values():
        sizes = np.array([len(s) for s in group])
        energies = np.array([s.energy for s in group], dtype=np.float64)
        mean = energies[sizes == sizes.min()].mean(), energies[sizes == sizes.max()].mean()
        clear = all(abs(m) > 5 * energies[sizes == n].std() for m, n in zip(mean, (sizes.min(), sizes.max())))
        if sizes.max() >= 1.5 * sizes.min() and clear and mean[0] * mean[1] > 0:
            exponents.append(math.log(mean[1] / mean[0]) / math.log(sizes.max() / sizes.min()))
    if not exponents or max(exponents) > PER_ATOM:
        return None
    return (
        f"the energies do not grow with the number of atoms (exponent {max(exponents):.2f}, expected 1, of "
        "cells of the same composition): energies per atom? Expected that of the whole cell"
    )
