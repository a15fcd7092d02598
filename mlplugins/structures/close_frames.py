"""Energy differences between close frames against the work of forces and stress.

    E_j − E_i = −½ (F_i + F_j)·Δr + ½ (V_i σ_i + V_j σ_j) : ε + third order,

Δr the displacement at fixed cell, ε the strain. Two least-squares coefficients, one per term, are 1 if
energies, forces and stress belong together; a unit or a sign shows as its factor, to a few per cent,
without any model: finite differences of the labels themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlplugins.structures.dataset import Structure

MAX_FRAMES = 80
MAX_DISPLACEMENT_A = 0.25
MAX_STRAIN = 0.05
MIN_PAIRS = 5
MIN_R2 = 0.98
MAX_ERROR = 0.1


class ClosePairs(NamedTuple):
    """P pairs of close frames.

    Attributes:
        first, second: the frames.
        work: (P,) −½(F_i + F_j)·Δr, eV.
        strain_work: (P,) ½(V_i σ_i + V_j σ_j):ε, eV; zero without a strain.
        change: (P,) E_j − E_i, eV.
    """

    first: list[Structure]
    second: list[Structure]
    work: NDArray[np.float64]
    strain_work: NDArray[np.float64]
    change: NDArray[np.float64]


class Factors(NamedTuple):
    """Factors of the labels, None where the pairs do not determine them.

    Attributes:
        energy: of the energies, against the work of the forces.
        stress: of the stress, against the energies.
        n: number of pairs.
    """

    energy: float | None
    stress: float | None
    n: int


def pairs(structures: Sequence[Structure]) -> ClosePairs:
    """Pairs of the same atoms in nearly the same places, along which the force does not change much."""
    able = [s for s in structures if s.forces is not None and s.energy is not None and len(s) > 1]
    found = [row for a, b in _candidates(able) if (row := _pair(a, b)) is not None]
    columns = [np.array([row[k] for row in found], dtype=np.float64) for k in (2, 3, 4)]
    return ClosePairs(
        [row[0] for row in found], [row[1] for row in found], columns[0], columns[1], columns[2]
    )


def factors(found: ClosePairs) -> Factors:
    """Factors that the pairs determine to 10 %, the terms explaining 98 % of the energy differences."""
    n = len(found.change)
    terms = [k for k, x in enumerate((found.work, found.strain_work)) if np.abs(x).max(initial=0.0) > 1e-6]
    total = float(found.change @ found.change)
    if n < MIN_PAIRS or not terms or total == 0.0:
        return Factors(None, None, n)
    matrix = np.stack([(found.work, found.strain_work)[k] for k in terms], axis=1)
    scale = np.sqrt(np.square(matrix).mean(axis=0))
    solution, _, rank, _ = np.linalg.lstsq(matrix / scale, found.change, rcond=1e-6)
    left = found.change - matrix / scale @ solution
    if rank < len(terms) or n <= len(terms) or 1.0 - float(left @ left) / total < MIN_R2:
        return Factors(None, None, n)
    normal = np.linalg.inv((matrix / scale).T @ (matrix / scale))
    error = np.sqrt(float(left @ left) / (n - len(terms)) * np.diag(normal)) / np.abs(solution)
    known = {k: float(c / s) for k, c, s, e in zip(terms, solution, scale, error) if e < MAX_ERROR}
    stress = known.get(1)
    return Factors(known.get(0), 1.0 / stress if stress else None, n)


def spread(found: ClosePairs) -> float:
    """RMS of the differences of the energies, eV."""
    return float(np.sqrt(np.mean(np.square(found.change)))) if len(found.change) else 0.0


def unexplained(found: ClosePairs) -> float:
    """RMS of what the best factors of both works leave of the differences, over that of these.

    >>> along = np.array([1.0, -2.0, 0.5])
    >>> unexplained(ClosePairs([], [], along, 0 * along, 3 * along)) < 1e-9
    True
    """
    matrix = np.stack([found.work, found.strain_work], axis=1)
    left = found.change - matrix @ np.linalg.lstsq(matrix, found.change, rcond=1e-6)[0]
    return float(np.sqrt(np.mean(np.square(left)))) / (spread(found) or 1.0)


def residual(found: ClosePairs, name: str) -> float | None:
    """RMS (eV) of the differences of the energy `name` minus the work; None if a frame lacks it."""
    if len(found.change) < MIN_PAIRS or not all(name in s.energies for s in [*found.first, *found.second]):
        return None
    change = np.array([b.energies[name] - a.energies[name] for a, b in zip(found.first, found.second)])
    return float(np.sqrt(np.mean(np.square(change - found.work - found.strain_work))))


def _candidates(structures: Sequence[Structure]) -> Iterator[tuple[Structure, Structure]]:
    """Neighbours in the file, and all pairs of frames spread evenly over it."""
    yield from zip(structures[: 10 * MAX_FRAMES], structures[1 : 10 * MAX_FRAMES + 1])
    spread = np.unique(np.linspace(0, len(structures) - 1, min(len(structures), MAX_FRAMES)).astype(int))
    for k, j in enumerate(spread):
        for i in spread[:k]:
            if i + 1 != j:
                yield structures[i], structures[j]


def _pair(a: Structure, b: Structure) -> tuple[Structure, Structure, float, float, float] | None:
    if not (np.array_equal(a.numbers, b.numbers) and np.array_equal(a.pbc, b.pbc)):
        return None
    if a.forces is None or b.forces is None or a.energy is None or b.energy is None:
        return None
    moved, strain = _motion(a, b)
    size = float(np.abs(strain).max())
    if np.sqrt(np.mean(np.square(moved).sum(axis=1))) > MAX_DISPLACEMENT_A or size > MAX_STRAIN:
        return None
    works = [-float((s.forces * moved).sum()) for s in (a, b) if s.forces is not None]
    strained = [0.0, 0.0]
    if size > 1e-6:
        if a.stress is None or b.stress is None:
            return None
        strained = [s.volume * float((s.stress * strain).sum()) for s in (a, b) if s.stress is not None]
    for x, y in (works, strained):
        if abs(x - y) > 0.5 * abs(x + y) + 1e-6:
            return None
    change = b.energy - a.energy
    return (
        None
        if change == 0.0 == sum(works) + sum(strained)
        else (a, b, sum(works) / 2, sum(strained) / 2, change)
    )


def _motion(a: Structure, b: Structure) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Displacements (N, 3) at the mean cell and the symmetric strain (3, 3)."""
    if not a.pbc.any() or abs(np.linalg.det(a.cell)) < 1e-9 or abs(np.linalg.det(b.cell)) < 1e-9:
        moved = b.positions - a.positions
        strain = (
            np.zeros((3, 3)) if np.allclose(a.cell, b.cell) or not a.pbc.any() else np.full((3, 3), np.inf)
        )
        return moved - moved.mean(axis=0), strain
    step = b.positions @ np.linalg.inv(b.cell) - a.positions @ np.linalg.inv(a.cell)
    step -= np.rint(step) * a.pbc
    mean = 0.5 * (a.cell + b.cell)
    if abs(np.linalg.det(mean)) < 1e-9:
        return step @ a.cell, np.full((3, 3), np.inf)
    strain = np.linalg.solve(mean, b.cell - a.cell)
    return (step - step.mean(axis=0)) @ mean, 0.5 * (strain + strain.T)
