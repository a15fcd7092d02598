"""Neighbour lists (vesin), full and sorted by centre, as the contract of a family requires."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from vesin import NeighborList

from mlplugins.errors import BadInput

FARTHEST = 1e8
"""Largest coordinate that is accepted, Å: beyond it neighbour lists lose digits, and then overflow."""

_MOST_CELLS = 1e5
_MOST_VISITS = 1e10
"""Cells that vesin divides space into, and visits of cells that take it a minute."""
_FEW = 5e3
"""So many cells along one direction never make too many visits."""


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

    Raises:
        BadInput: positions or periodic cell vectors that are not finite or beyond 1e8 Å, a cell without
            volume, atoms so far from each other that no list can be made.

    >>> edges = neighbor_list([[0, 0, 0]], [[3, 0, 0], [0, 3, 0], [0, 0, 3]], [True] * 3, 3.5)
    >>> len(edges.centers), float(edges.vectors.sum())
    (6, 0.0)
    """
    points = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    box = np.ascontiguousarray(cell, dtype=np.float64).reshape(3, 3)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    for number, row in enumerate(box):
        if periodic[number] and not (np.abs(row) < FARTHEST).all():
            raise BadInput(
                f"cell vector {number}: {row.tolist()} Å; expected finite numbers below {FARTHEST:.0e}"
            )
    # (numpy 2.0 knows no rank of shape (0, 3))
    if periodic.any() and np.linalg.matrix_rank(box[periodic]) < periodic.sum():
        raise BadInput(f"the cell {box.tolist()} has no volume along its periodic directions")
    require_extent(points, box, periodic, cutoff)
    finder = NeighborList(cutoff=float(cutoff), full_list=True, sorted=True)
    i, j, shifts, vectors = finder.compute(
        points=points, box=box, periodic=[bool(p) for p in periodic], quantities="ijSD"
    )
    integer = [np.asarray(a, dtype=np.int64) for a in (i, j, shifts)]
    return Edges(integer[0], integer[1], integer[2].reshape(-1, 3), np.asarray(vectors).reshape(-1, 3))


def require_extent(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], cutoff: float
) -> None:
    """Refuse structures that vesin cannot divide into cells of the size of the cutoff: it would abort.

    Args:
        positions: (N, 3), Å.
        cell: (3, 3), rows are the cell vectors, Å.
        pbc: (3,) booleans.
        cutoff: Å.

    Raises:
        BadInput: the text names the atom that lies farthest from the others.

    >>> require_extent(np.array([[0.0, 0, 0], [1e4, 0, 0]]), np.zeros((3, 3)), np.zeros(3, bool), 5.0)
    """
    square = float(np.vdot(positions, positions))  # cheap, and bounds every coordinate
    if not square < FARTHEST**2 and not (np.abs(positions) < FARTHEST).all():
        _refuse(positions, "is not finite or out of bounds")
    reach = 2.02 * math.sqrt(square)
    a, b, c = cell.tolist()
    x, y, z = (
        max(1.0, (math.hypot(*row) if periodic else reach) / cutoff)
        for periodic, row in zip(pbc.tolist(), (a, b, c))
    )
    if x * y * z <= _MOST_CELLS and max(x, y, z) <= _FEW:
        return
    x, y, z = (max(1.0, math.trunc(span / cutoff)) for span in _spans(positions, cell, pbc))
    if x * y * z > _MOST_CELLS:  # fewer then, in proportion: none is left along a thin and long space
        x_y, y_z = x / y, y / z
        z = math.trunc(math.cbrt(_MOST_CELLS / (x_y * y_z**2)))
        y = math.trunc(y_z * z)
        x = math.trunc(x_y * y)
    if min(x, y, z) < 1 or _visits((x, y, z), pbc) > _MOST_VISITS:
        _refuse(positions, f"makes the structure too long for neighbours within {cutoff:g} Å")


def _spans(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Heights of the cell along periodic directions, extent of the atoms along the others, Å."""
    spans = np.maximum(1.01 * np.ptp(positions, axis=0), 1.0)
    if pbc.any():
        spans[pbc] = 1.0 / np.linalg.norm(np.linalg.pinv(cell[pbc]), axis=0)
    return spans


def _visits(counts: tuple[float, float, float], pbc: NDArray[np.bool_]) -> float:
    """Pairs of cells that are looked at: with some directions periodic, all along the others."""
    mixed = pbc.any() and not pbc.all()
    each = (count * (2 * count if mixed and not periodic else 3) for count, periodic in zip(counts, pbc))
    return math.prod(each)


def _refuse(positions: NDArray[np.float64], what: str) -> None:
    sound = np.isfinite(positions).all(axis=1)
    middle = np.median(positions[sound], axis=0) if sound.any() else 0.0
    atom = int(np.argmax(np.where(sound, np.abs(positions - middle).max(axis=1), np.inf)))
    raise BadInput(
        f"atom {atom} at {positions[atom].tolist()} Å {what}: a lost atom, or other units than Å? "
        "Remove it, or give a periodic cell"
    )
