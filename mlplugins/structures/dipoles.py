"""Dipoles of molecules: their unit, by moments of bonds, and the point that those of ions refer to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from mlplugins import units
from mlplugins.quantities import QUANTITIES
from mlplugins.structures import state as states
from mlplugins.structures.dataset import Keys, Structure
from mlplugins.structures.neighbors import neighbor_list

BOND = 1.3
"""Distance over the sum of the covalent radii up to which two atoms are bonded."""
MOMENTS = {
    (1, 6): 0.35, (1, 7): 1.31, (1, 8): 1.51, (1, 9): 1.9, (1, 16): 0.7, (1, 17): 1.1, (1, 35): 0.8,
    (1, 53): 0.4, (6, 7): 0.5, (6, 8): 0.9, (6, 9): 1.5, (6, 16): 0.9, (6, 17): 1.5, (6, 35): 1.4,
    (6, 53): 1.2, (7, 8): 0.3,
}  # fmt: skip
"""Debye, of single bonds, the positive end first; compare C. P. Smyth, Dielectric Behavior and Structure
(1955)."""
ONE = {(6, 8): 2.4, (6, 7): 3.5, (6, 16): 2.6, (7, 8): 2.0}
"""Where the negative end has no other neighbour: double and triple bonds."""
TWO = {(6, 7): 1.2}
"""Where it has one more."""
TYPICAL = 1.1
"""Computed dipoles over the sum of these moments: 0.7 (H2CO), 1.16 (QM7-X), 1.5 (hydrogen-bonded trimers)."""
DIVERSE, OFF_DIVERSE, OFF = 5, 1.6, 2.4
"""Formulas from which a set is diverse, and factors from `TYPICAL` that are another unit: in such a set, in
others."""
ALIKE, POLAR_D = 0.8, 0.7
"""Correlation with the sums of moments, and their RMS (Debye), that the comparison needs."""
FEWEST, LOOKED_AT = 5, 200
SAME_CELL, NEAR = 0.02, 0.2
"""Relative difference of two cells, and how far a step of the dipole may be from a cell vector times e."""
POLAR = 0.5
"""Dipole over the length of a molecule, e, which water (0.25) and HF (0.4) do not reach, but LiF (0.8)."""


def check(structures: Sequence[Structure], keys: Keys) -> list[str]:
    """A warning about dipoles that look like those of another unit than the one declared, or are of several
    branches.

    The labels are e·Å by now. Only molecules (not periodic) of non-metals are compared with bonds.
    """
    if branches := _branches(structures):
        return [branches]
    frames = [s for s in structures if s.get("dipole") is not None and not s.pbc.any() and len(s) > 2]
    rows = [(s, moment(s)) for s in frames[:: max(1, math.ceil(len(frames) / LOOKED_AT))]]
    known = [(s, expected) for s, expected in rows if expected is not None]
    if "dipole" not in keys.units:
        return []
    if len(known) < FEWEST:
        return _long(frames)
    labels = np.concatenate([np.ravel(s.get("dipole")) for s, _ in known])
    expected = np.concatenate([each for _, each in known])
    square = float(expected @ expected)
    if square / len(known) < (POLAR_D * units.E_A_PER_DEBYE) ** 2 or not labels.any():
        return []
    alike = float(expected @ labels) / math.sqrt(square * float(labels @ labels))
    if alike < -ALIKE:
        return [
            "heads: dipole: the labels point against the moments of the bonds of these molecules "
            f"(correlation {alike:.2f}): expected dipoles from − to +; change their sign"
        ]
    if alike < ALIKE:
        return []
    ratio = float(expected @ labels) / square / TYPICAL
    diverse = len({tuple(np.bincount(s.numbers)) for s, _ in known}) >= DIVERSE
    if abs(math.log(ratio)) < math.log(OFF_DIVERSE if diverse else OFF):
        return []
    return [_words(ratio * TYPICAL, ratio, keys.units["dipole"], alike)]


def _branches(structures: Sequence[Structure]) -> str:
    """Dipoles of periodic frames that differ by e times cell vectors from one frame of a run to the next."""
    jumps, others, first = 0, 0, ""
    for a, b in zip(structures, structures[1:]):
        before, after = a.get("dipole"), b.get("dipole")
        if before is None or after is None or not (a.pbc.all() and b.pbc.all()):
            continue
        if not np.array_equal(a.numbers, b.numbers) or abs(np.linalg.det(a.cell)) < 1e-9:
            continue
        if np.abs(a.cell - b.cell).max() > SAME_CELL * np.abs(a.cell).max():
            continue
        parts = np.linalg.solve(a.cell.T, np.asarray(after) - np.asarray(before))
        whole = np.rint(parts)
        if whole.any():
            near = bool((np.abs(parts - whole) < NEAR).all())
            jumps, others = jumps + near, others + (not near)
            first = first or near * f"{a.origin} and {b.origin}"
    if jumps <= 3 * others:
        return ""
    return (
        "heads: dipole: the dipole of periodic frames is known up to e times a cell vector, and the labels "
        f"jump by such vectors {jumps} times from one frame to the next, e.g. between {first}: no model can "
        "learn several branches: take the labels to one (subtract the jumps, or sum Wannier centres relative "
        "to their molecules)"
    )


def _long(frames: Sequence[Structure]) -> list[str]:
    """Dipoles that would take much charge at the ends of their molecules."""
    found = [np.linalg.norm(s.get("dipole")) / np.ptp(s.positions @ _axis(s), axis=0) for s in frames]
    if not found or np.median(found) < POLAR:
        return []
    return [
        f"the dipoles are {np.median(found):.2g} e times the length of their molecules (median of "
        f"{len(found)} frames), which only ionic ones have: are the labels in Debye (0.208 e·Å) or e·bohr "
        "(0.529 e·Å)? Then give that unit: heads: {dipole: {unit: Debye}}"
    ]


def _axis(s: Structure) -> NDArray[np.float64]:
    """The direction in which a molecule is longest."""
    axes: NDArray[np.float64] = np.linalg.svd(s.positions - s.positions.mean(axis=0))[2]
    return axes[0]


def _words(found: float, ratio: float, declared: str, alike: float) -> str:
    known = QUANTITIES["dipole"].file_units
    others = {name: known[name] / known[declared] for name in known if name != declared}
    best = min(others, key=lambda name: abs(math.log(ratio * others[name])))
    guess = f"are they in {best}? " if abs(math.log(ratio * others[best])) < math.log(OFF_DIVERSE) else ""
    return (
        f"heads: dipole: read as {declared}, the labels are {found:.2g} times the moments of the bonds of "
        f"these molecules (correlation {alike:.2f}; expected 0.7 to 1.5): {guess}Compare one molecule with a "
        "calculation of your own, and correct unit"
    )


def moment(s: Structure) -> NDArray[np.float64] | None:
    """Sum of the moments of the bonds, from − to +, e·Å; None where one of them is not known.

    >>> water = Structure(np.array([8, 1, 1]), np.array([[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]),
    ...                   np.zeros((3, 3)), np.zeros(3, dtype=bool))
    >>> (moment(water) / units.E_A_PER_DEBYE).round(2).tolist()  # measured: 1.85
    [0.0, 0.0, 1.85]
    """
    radii = covalent_radii[s.numbers]
    edges = neighbor_list(s.positions, s.cell, s.pbc, 2 * BOND * float(radii.max()))
    length = np.linalg.norm(edges.vectors, axis=1)
    bonded = length < BOND * (radii[edges.centers] + radii[edges.neighbors])
    neighbors = np.bincount(edges.centers[bonded], minlength=len(s))
    total = np.zeros(3)
    rows = zip(edges.centers[bonded], edges.neighbors[bonded], edges.vectors[bonded] / length[bonded, None])
    for i, j, along in rows:
        ends = int(s.numbers[i]), int(s.numbers[j])
        if ends in MOMENTS:
            more = {1: ONE, 2: TWO}.get(int(neighbors[j]), {})
            total -= more.get(ends, MOMENTS[ends]) * along
        elif ends[::-1] not in MOMENTS and ends[0] != ends[1]:
            return None
    return np.asarray(total * units.E_A_PER_DEBYE)


def of_charged(structures: Sequence[Structure]) -> str:
    """Which frame has the dipole of a charged system, which depends on the origin; "" if none.

    >>> of_charged([])
    ''
    """
    for s in structures:
        if s.get("dipole") is None:
            continue
        charge = states.of(s.states, s.origin).charge
        if charge:
            return (
                f"{s.origin}: the dipole of a system of charge {charge:+g} e depends on the origin, and what "
                "a model predicts does not: expected μ − Q r₀ relative to a centre r₀ that moves along"
            )
    return ""
