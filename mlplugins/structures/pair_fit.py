"""Energies and virials implied by the forces of a data set, through a pair potential fitted to them.

The potential is Σ_k c_k φ_k(r) per pair of elements, linear in c; ridge regression on the forces alone gives
c. Its energies and virials are crude, but their fluctuations follow those of the labels in solids, liquids
and molecules closely enough to tell a factor of ten or a sign. Every frame is predicted from the frames of
the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlplugins.structures.dataset import Structure
from mlplugins.structures.neighbors import neighbor_list

RANGE_A = 6.0
N_RADIAL = 10
RIDGES = (1e-4, 1e-2)
MAX_FRAMES = 60
MAX_ATOMS = 3000
ROWS_PER_COEFFICIENT = 3
OUTLIER = 10.0
"""Frames whose forces are this many times those of the median frame are left out."""


class Implied(NamedTuple):
    """Energies and virials implied by the forces, S frames.

    Attributes:
        structures: the frames that were used.
        energy: (S,) eV, up to a constant per element.
        virial: (S, 3, 3) V σ in eV.
        r2: share of the forces that the potential explains in frames it was not fitted to.
    """

    structures: list[Structure]
    energy: NDArray[np.float64]
    virial: NDArray[np.float64]
    r2: float


class _Rows(NamedTuple):
    energy: NDArray[np.float64]  # (M,)
    forces: NDArray[np.float64]  # (3N, M)
    virial: NDArray[np.float64]  # (9, M)


def implied(structures: Sequence[Structure], ridge: float = RIDGES[0]) -> Implied | None:
    """Energies and virials that the forces of some of the structures imply; None if there are too few.

    The scale is that of the forces: labels in eV and eV/Å³ have slope 1 against it.
    """
    chosen = _chosen(structures)
    elements = sorted({int(z) for s in chosen for z in s.numbers})
    pairs = {pair: k for k, pair in enumerate(combinations_with_replacement(elements, 2))}
    size = len(pairs) * N_RADIAL
    n_rows = 3 * sum(len(s) for s in chosen)
    if len(chosen) < 6 or n_rows < 2 * ROWS_PER_COEFFICIENT * size:
        return None
    rows = [_rows(s, pairs) for s in chosen]
    halves = [_solve(rows[part::2], chosen[part::2], ridge) for part in (0, 1)]
    other = [halves[1 - k % 2] for k in range(len(chosen))]
    energy = np.array([r.energy @ c for r, c in zip(rows, other)])
    virial = np.array([(r.virial @ c).reshape(3, 3) for r, c in zip(rows, other)])
    left = np.concatenate([_forces(s) - r.forces @ c for s, r, c in zip(chosen, rows, other)])
    total = np.concatenate([_forces(s) for s in chosen])
    return Implied(chosen, energy, virial, 1.0 - float(left @ left / (total @ total)))


def _chosen(structures: Sequence[Structure]) -> list[Structure]:
    """Frames spread evenly over the set, of a bounded number of atoms."""
    able = [s for s in structures if s.forces is not None and len(s) > 1 and s.forces.any()]
    if not able:
        return []
    size = [float(np.sqrt(np.mean(np.square(_forces(s))))) for s in able]
    able = [s for s, x in zip(able, size) if x < OUTLIER * float(np.median(size))]
    mean = sum(map(len, able)) / max(len(able), 1)
    n = int(min(MAX_FRAMES, max(MAX_ATOMS / mean, 8), len(able)))
    return [able[k] for k in np.unique(np.linspace(0, len(able) - 1, n).astype(int))]


def _forces(structure: Structure) -> NDArray[np.float64]:
    return np.zeros(0) if structure.forces is None else structure.forces.ravel()


def _solve(rows: Sequence[_Rows], structures: Sequence[Structure], ridge: float) -> NDArray[np.float64]:
    stack = np.concatenate([r.forces for r in rows])
    matrix, right = stack.T @ stack, stack.T @ np.concatenate([_forces(s) for s in structures])
    shift = ridge * np.trace(matrix) / len(matrix) + 1e-12
    return np.asarray(np.linalg.solve(matrix + shift * np.eye(len(matrix)), right))


def _rows(s: Structure, pairs: dict[tuple[int, int], int]) -> _Rows:
    edges = neighbor_list(s.positions, s.cell, s.pbc, RANGE_A)
    distance = np.linalg.norm(edges.vectors, axis=1)
    unit = edges.vectors / distance[:, None]
    value, slope = _radial(distance)
    kinds = np.sort(np.stack([s.numbers[edges.centers], s.numbers[edges.neighbors]], axis=1), axis=1)
    index = np.array([pairs[int(a), int(b)] for a, b in kinds], dtype=int)
    n, size = len(s), len(pairs) * N_RADIAL
    energy, forces, virial = np.zeros(size), np.zeros((n, 3, size)), np.zeros((9, size))
    for k in np.unique(index):
        m, columns = index == k, slice(k * N_RADIAL, (k + 1) * N_RADIAL)
        energy[columns] = 0.5 * value[m].sum(axis=0)
        # both directions of a pair are in the list: the centre's half is all of its force
        pull = unit[m][:, :, None] * slope[m][:, None, :]
        summed = np.zeros((n, 3, N_RADIAL))
        np.add.at(summed, edges.centers[m], pull)
        forces[:, :, columns] = summed
        virial[:, columns] = 0.5 * np.einsum("ea,ebk->abk", edges.vectors[m], pull).reshape(9, N_RADIAL)
    return _Rows(energy, forces.reshape(3 * n, size), virial)


def _radial(r: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gaussians that vanish smoothly at the range, and their slopes, (E, K)."""
    centre = np.linspace(1.0, RANGE_A - 0.3, N_RADIAL)
    width = centre[1] - centre[0]
    x = (r[:, None] - centre) / width
    bell = np.exp(-0.5 * x * x)
    wave = np.pi * r[:, None] / RANGE_A
    fade, fade_slope = 0.5 * (1.0 + np.cos(wave)), -0.5 * np.pi / RANGE_A * np.sin(wave)
    return bell * fade, bell * (fade_slope - x / width * fade)
