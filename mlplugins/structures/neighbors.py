"""Neighbour lists (vesin), full and sorted by centre, as the model contract wants them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from vesin import NeighborList


class Edges(NamedTuple):
    """Directed edges centre → neighbour.

    Attributes:
        centers: (E,) int64, ascending.
        neighbors: (E,) int64.
        shifts: (E, 3) int64, cell shift of the neighbour: v = r_j − r_i + shift · cell.
        vectors: (E, 3) float64, Å.
    """

    centers: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    shifts: NDArray[np.int64]
    vectors: NDArray[np.float64]


def neighbor_list(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float) -> Edges:
    """All pairs closer than `cutoff` (Å), each in both directions, periodic images included.

    Args:
        positions: (N, 3), Å.
        cell: (3, 3), rows are the cell vectors, Å.
        pbc: three booleans.
        cutoff: Å.

    >>> edges = neighbor_list([[0, 0, 0]], [[3, 0, 0], [0, 3, 0], [0, 0, 3]], [True] * 3, 3.5)
    >>> len(edges.centers), float(edges.vectors.sum())
    (6, 0.0)
    """
    points = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    box = np.ascontiguousarray(cell, dtype=np.float64).reshape(3, 3)
    finder = NeighborList(cutoff=float(cutoff), full_list=True, sorted=True)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    i, j, shifts, vectors = finder.compute(
        points=points, box=box, periodic=[bool(p) for p in periodic], quantities="ijSD"
    )
    integer = [np.asarray(a, dtype=np.int64) for a in (i, j, shifts)]
    return Edges(integer[0], integer[1], integer[2].reshape(-1, 3), np.asarray(vectors).reshape(-1, 3))
