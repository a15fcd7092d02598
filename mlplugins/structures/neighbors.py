"""Neighbour lists (vesin), full and sorted by centre, as the model contract wants them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from vesin import NeighborList

from mlplugins.errors import BadInput

FARTHEST = 1e8
"""Largest coordinate and cell edge, Å: far beyond, the grids of neighbour lists overflow."""


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

    Raises:
        BadInput: a coordinate or a periodic cell that is not finite or beyond 1e8 Å, or without volume.
    """
    points = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    box = np.ascontiguousarray(cell, dtype=np.float64).reshape(3, 3)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    for name, values in (("position", points), ("cell vector", box[periodic])):
        near = (np.abs(values) < FARTHEST).all(axis=1)
        if not near.all():
            worst = int(np.argmin(near))
            raise BadInput(
                f"{name} {worst}: {values[worst].tolist()} Å; expected finite numbers below {FARTHEST:.0e}"
            )
    if np.linalg.matrix_rank(box[periodic]) < periodic.sum():
        raise BadInput(f"the cell {box.tolist()} has no volume along its periodic directions")
    finder = NeighborList(cutoff=float(cutoff), full_list=True, sorted=True)
    i, j, shifts, vectors = finder.compute(
        points=points, box=box, periodic=[bool(p) for p in periodic], quantities="ijSD"
    )
    integer = [np.asarray(a, dtype=np.int64) for a in (i, j, shifts)]
    return Edges(integer[0], integer[1], integer[2].reshape(-1, 3), np.asarray(vectors).reshape(-1, 3))
