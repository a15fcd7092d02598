"""Distances of pairs without a neighbour list: vesin, where torch is installed, loads it (200 MB, a second),
which the analysis has no other use for."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from mlplugins.errors import BadInput

MOST, SHIFTS = 1e7, 1e5
"""Images of atoms outside the cell that are looked at, and of the cell."""


def distances(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, reach: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """First atom, second atom and distance (Å) of all pairs within `reach`, each in both directions, periodic
    images included.

    Args:
        positions: (N, 3), Å.
        cell: (3, 3), rows are the cell vectors, Å.
        pbc: three booleans.
        reach: Å.

    Raises:
        BadInput: positions that are not finite, a cell so thin that too many images are within `reach`.

    >>> first, second, r = distances([[0, 0, 0]], [[3, 0, 0], [0, 3, 0], [0, 0, 3]], [True] * 3, 3.5)
    >>> first.tolist(), r.tolist()
    ([0, 0, 0, 0, 0, 0], [3.0, 3.0, 3.0, 3.0, 3.0, 3.0])
    """
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise BadInput(f"position of atom {np.argmin(finite)} is not finite")
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    vectors = np.asarray(cell, dtype=np.float64).reshape(3, 3)[periodic]
    inverse = np.linalg.pinv(vectors)  # (3, number of periodic directions)
    fractions = points @ inverse
    whole = np.floor(fractions)
    points, fractions = points - whole @ vectors, fractions - whole
    margin = reach * np.linalg.norm(inverse, axis=0)  # over the heights of the cell
    counts = np.ceil(margin)
    images_outside = len(points) * (np.prod(1 + 2 * margin) - 1)
    if not (images_outside < MOST and np.prod(2 * counts + 1) < SHIFTS):
        raise BadInput(f"the cell {vectors.tolist()} is too thin for distances up to {reach:.3g} Å")
    images, owners = [points], [np.arange(len(points))]
    for shift in product(*(range(-int(n), int(n) + 1) for n in counts)):
        if any(shift):
            moved = fractions + shift
            near = ((moved > -margin) & (moved < 1.0 + margin)).all(axis=1)
            images.append(points[near] + np.asarray(shift) @ vectors)
            owners.append(np.flatnonzero(near))
    found = cKDTree(points).sparse_distance_matrix(
        cKDTree(np.concatenate(images)), reach, output_type="ndarray"
    )
    found = found[found["i"] != found["j"]]
    return found["i"].astype(np.int64), np.concatenate(owners)[found["j"]], found["v"]
