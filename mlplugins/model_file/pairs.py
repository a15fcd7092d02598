"""Neighbour lists of the Python engines, kept from step to step."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from metatensor.torch import Labels
from numpy.typing import NDArray
from torch import Tensor
from vesin import NeighborList

from mlplugins.errors import BadInput
from mlplugins.model_file.structure import Array, Prepared
from mlplugins.structures.neighbors import require_extent

PAIR_NAMES = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]

ROUNDING = 1e-6
"""Far more than two ways of computing a distance differ by, Å."""


class NeighborPairs(NamedTuple):
    """Neighbours of one structure, closer than the cutoff.

    Attributes:
        centers: (E,) int64, first atom of each pair; ascending.
        neighbors: (E,) int64, the second.
        vectors: (E, 3) float64, from the first to the second, Å.
        samples: (P, 5) int32, candidates: both atoms and the cell shift of the second.
        rows: (E,) int64, the rows of `samples` that are pairs.
    """

    centers: Tensor
    neighbors: Tensor
    vectors: Tensor
    samples: Tensor
    rows: Tensor

    def labels(self, device: torch.device) -> Labels:
        """As metatomic names them."""
        return Labels(PAIR_NAMES, self.samples.index_select(0, self.rows).to(device), assume_unique=True)


class _Candidates(NamedTuple):
    """All pairs that were within some reach, and where the atoms were then."""

    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    samples: Tensor

    def follow(self, now: Prepared) -> tuple[Array, float] | None:
        """Where the atoms are if they follow the cell, and ‖F⁻¹‖; None if no pairs can be told from these.

        F = h₀⁻¹ h deforms the cell, and u_i = r_i − r₀_i F is how far an atom moved besides. The vector v of
        a pair was (v − u_j + u_i) F⁻¹ and so no longer than (|v| + 2 max |u|) ‖F⁻¹‖.
        """
        if self.positions.shape != now.positions.shape or self.pbc.tobytes() != now.pbc.tobytes():
            return None
        if self.cell.tobytes() == now.cell.tobytes():
            return self.positions, 1.0
        if not now.pbc.all():
            return None
        expected = self.positions @ np.linalg.solve(self.cell, now.cell)
        return expected, float(np.linalg.norm(np.linalg.solve(now.cell, self.cell), 2))


class NeighborCache:
    """Neighbour lists that are reused until an atom may have come within the cutoff unseen.

    A list holds all pairs within the cutoff and a `skin` (Å). In a fixed cell it serves until an atom has
    moved by half of the skin; when the cell changes (NPT), the deformation of the cell, which atoms follow,
    and what they move beyond it share the skin. Of its pairs those within the cutoff are given, sorted by
    atoms and shifts: the result depends on positions and cell alone, bit for bit, whatever came before and
    whatever the skin. A list is kept for each place in the batch.
    """

    def __init__(self, skin: float = 0.0) -> None:
        if not math.isfinite(skin) or skin < 0:
            raise BadInput(f"skin: expected a length in Å, zero or more, got {skin}")
        self.skin = float(skin)
        self._kept: dict[tuple[int, float, bool], _Candidates] = {}

    def pairs(self, place: int, structure: Prepared, cutoff: float, full: bool) -> NeighborPairs:
        """Pairs closer than `cutoff`; in both directions if `full`."""
        key, reach = (place, cutoff, full), cutoff + self.skin
        kept = self._kept.get(key)
        if kept is not None and (followed := kept.follow(structure)) is not None:
            expected, stretch = followed
            pairs, farthest = _near(structure, expected, kept.samples, cutoff)
            if (cutoff + 2.0 * farthest) * stretch <= reach:
                return pairs
        samples = _candidates(structure, reach, full)
        if self.skin > 0:
            self._kept[key] = _Candidates(structure.positions, structure.cell, structure.pbc, samples)
        return _near(structure, structure.positions, samples, cutoff)[0]


def _near(
    structure: Prepared, expected: Array, samples: Tensor, cutoff: float
) -> tuple[NeighborPairs, float]:
    """The pairs among `samples`, and how far an atom is at most from where it is expected."""
    rows, centers, neighbors, vectors, farthest = torch.ops.mlplugins.near_pairs(
        torch.from_numpy(structure.positions),
        torch.from_numpy(expected),
        torch.from_numpy(structure.cell),
        samples,
        cutoff,
    )
    return NeighborPairs(centers, neighbors, vectors, samples, rows), farthest.item()


def _candidates(structure: Prepared, reach: float, full: bool) -> Tensor:
    """All pairs within `reach`, (P, 5) int32, sorted."""
    require_extent(structure.positions, structure.cell, structure.pbc, reach)
    finder = NeighborList(cutoff=reach + ROUNDING, full_list=full, n_threads=torch.get_num_threads())
    atoms, shifts = finder.compute(
        points=structure.positions,
        box=structure.cell,
        periodic=structure.pbc,
        quantities="PS",
        copy=False,  # views, gone with the finder
    )
    samples = np.concatenate([atoms, shifts], axis=1, dtype=np.int32, casting="unsafe")
    if len(samples) == 0:
        return torch.from_numpy(samples)
    lowest = int(shifts.min())
    n_atoms, n_shifts = len(structure.positions), int(shifts.max()) - lowest + 1
    key = samples[:, 0].astype(np.int64)
    for column, size, first in zip(samples.T[1:], [n_atoms] + 3 * [n_shifts], [0] + 3 * [lowest]):
        key = key * size + (column - first)
    return torch.from_numpy(samples.take(np.argsort(key, kind="stable"), axis=0))
