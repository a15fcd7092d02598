"""Permutations of equivalent atoms: of the bond graph, as far as the training frames show them; or given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mlplugins.errors import BadInput
from mlplugins.structures.dataset import Structure

Permutations = NDArray[np.int64]

LARGEST_GROUP = 1000
"""Permutations beyond which kernels are refused."""

BOND_FACTOR = 1.3
"""Bonds are shorter than this times the sum of the covalent radii."""

SHOWN = 1.12
"""A permutation is kept if permuted frames lie no farther from the nearest frame than this times the usual
distance."""

SAMPLE = 200
"""Frames that are compared."""

TWINS = 1e-4
"""Frames closer than this times the spread of the descriptors are the same geometry to a kernel."""


def detect(frames: Sequence[Structure]) -> Permutations:
    """Automorphisms of the bond graph of the frame of lowest energy that the frames show: (K, n), identity
    first.

    A swap that never happens (two hydrogens of a methyl group without its rotation) would only cost time: the
    nearest-neighbour distances, in 1/r, of permuted frames to the frames are compared with those among the
    frames.

    Raises:
        BadInput: more than `LARGEST_GROUP` automorphisms.
    """
    lowest = min(frames, key=lambda s: s.energy or 0.0)
    candidates = automorphisms(lowest.numbers, bonds(lowest))
    if len(candidates) == 1:
        return candidates
    sample = [frames[k] for k in np.linspace(0, len(frames) - 1, min(SAMPLE, len(frames))).astype(int)]
    i, j = np.triu_indices(len(lowest), 1)
    inverse = []
    for s in sample:
        distance = np.linalg.norm(s.positions[:, None] - s.positions[None], axis=2)
        np.fill_diagonal(distance, 1.0)
        inverse.append(1.0 / distance)
    x = np.array([a[i, j] for a in inverse])
    usual = _nearest(x, x, exclude_self=True)
    kept = [p for p in candidates if _nearest(np.array([a[p[i], p[j]] for a in inverse]), x) < SHOWN * usual]
    return group(kept or [np.arange(len(lowest))], len(lowest))


def _nearest(x: NDArray[np.float64], others: NDArray[np.float64], exclude_self: bool = False) -> float:
    """Median distance to the nearest of the others."""
    squares = (x**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2.0 * x @ others.T
    if exclude_self:
        np.fill_diagonal(squares, np.inf)
    nearest = np.sqrt(np.maximum(squares.min(1), 0.0))
    finite = nearest[np.isfinite(nearest)]
    return float(np.median(finite)) if len(finite) else 0.0


def bonds(structure: Structure) -> NDArray[np.bool_]:
    """(n, n) whether two atoms are bonded, by covalent radii."""
    radii = covalent_radii[structure.numbers]
    distance = np.linalg.norm(structure.positions[:, None] - structure.positions[None], axis=2)
    bonded: NDArray[np.bool_] = distance < BOND_FACTOR * (radii[:, None] + radii[None])
    np.fill_diagonal(bonded, False)
    return bonded


def automorphisms(colors: NDArray[np.int64], adjacency: NDArray[np.bool_]) -> Permutations:
    """All permutations p of the vertices with color[p] = color, adjacency[p][:, p] = adjacency; identity
    first.

    >>> automorphisms(np.array([8, 1, 1]), np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=bool)).tolist()
    [[0, 1, 2], [0, 2, 1]]

    Raises:
        BadInput: more than `LARGEST_GROUP`.
    """
    n = len(colors)
    degree = adjacency.sum(1)
    found: list[list[int]] = []

    def extend(images: list[int]) -> None:
        v = len(images)
        if v == n:
            found.append(list(images))
            _require_small(len(found))
            return
        for w in range(n):
            if w in images or colors[w] != colors[v] or degree[w] != degree[v]:
                continue
            if (adjacency[v, :v] == adjacency[w, images]).all():
                extend([*images, w])

    extend([])
    return np.array(sorted(found), dtype=np.int64)


def group(generators: Sequence[Sequence[int] | Permutations], n: int) -> Permutations:
    """All products of some permutations of n atoms, identity first.

    >>> group([[1, 2, 0]], 3).tolist()
    [[0, 1, 2], [1, 2, 0], [2, 0, 1]]

    Raises:
        BadInput: not permutations of 0 … n − 1, or more than `LARGEST_GROUP` products.
    """
    for p in generators:
        if sorted(int(k) for k in p) != list(range(n)):
            raise BadInput(
                f"model.permutations: expected the numbers 0 … {n - 1} in some order, got {list(p)}"
            )
    steps = [tuple(int(k) for k in p) for p in generators]
    found = {tuple(range(n))}
    waiting = list(found)
    while waiting:
        p = waiting.pop()
        for q in steps:
            product = tuple(p[k] for k in q)
            if product not in found:
                found.add(product)
                _require_small(len(found))
                waiting.append(product)
    return np.array(sorted(found), dtype=np.int64)


def given(generators: Sequence[Sequence[int]], numbers: NDArray[np.int64]) -> Permutations:
    """The group of permutations that a user gave.

    Raises:
        BadInput: a permutation that swaps different elements, or see `group`.
    """
    found = group(generators, len(numbers))
    for p in found:
        if (numbers[p] != numbers).any():
            raise BadInput(f"model.permutations: {p.tolist()} swaps atoms of different elements")
    return found


def of_pairs(permutations: Permutations) -> NDArray[np.int64]:
    """(K, P) the permutations acting on the pairs i < j, in row-major order."""
    n = permutations.shape[1]
    i, j = np.triu_indices(n, 1)
    place = np.zeros((n, n), dtype=np.int64)
    place[i, j] = place[j, i] = np.arange(len(i))
    return np.array([place[p[i], p[j]] for p in permutations]).reshape(len(permutations), -1)


def twins(x: NDArray[np.float64], pairs: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Frames of the same geometry: equal, rotated, reflected or with equivalent atoms exchanged.

    Args:
        x: (N, P) descriptors.
        pairs: (K, P) permutations of the pairs, identity first.

    >>> twins(np.array([[0.0, 1.0], [5.0, 5.0], [1.0, 0.0]]), np.array([[0, 1], [1, 0]]))
    [(0, 2)]
    """
    if len(x) < 2:
        return []
    spread = float(np.sqrt(x.var(0).sum()))
    tree = cKDTree(x)
    found = {(int(i), int(j)) for i, j in tree.query_pairs(TWINS * spread)}
    for order in pairs[1:]:
        near = cKDTree(x[:, order]).query_ball_tree(tree, TWINS * spread)
        found |= {(i, j) for i, others in enumerate(near) for j in others if i < j}
    return sorted(found)


def _require_small(count: int) -> None:
    if count > LARGEST_GROUP:
        raise BadInput(
            f"permutation group too large: more than {LARGEST_GROUP} permutations of equivalent atoms; give "
            "those that happen with model.permutations: [[1, 0, 2, …], …] (generators), or set it to none"
        )
