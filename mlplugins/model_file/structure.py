"""Structures as passed by the engines, checked and converted to plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput, RunFailed
from mlplugins.structures.neighbors import FARTHEST
from mlplugins.structures.state import ElectronicState

Array = NDArray[np.float64]

BLOWN_UP = "a simulation has blown up before (look at its time step and its starting structure)"


class StructureLike(Protocol):
    """What can be evaluated: an `ase.Atoms`, a `PlainStructure`, or an object with these attributes."""

    @property
    def numbers(self) -> Any: ...
    @property
    def positions(self) -> Any: ...
    @property
    def cell(self) -> Any: ...
    @property
    def pbc(self) -> Any: ...


class PlainStructure(NamedTuple):
    """A structure as plain arrays.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (N, 3), Å.
        cell: (3, 3), rows are the cell vectors, Å.
        pbc: (3,) booleans.
        info: its charge and spin, as in `ase.Atoms`.
    """

    numbers: NDArray[np.integer]
    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    info: Mapping[str, Any] = MappingProxyType({})


class Prepared(NamedTuple):
    """A checked structure: as `PlainStructure`, with zero cell vectors along non-periodic directions.

    Attributes:
        volume: of the cell as given, Å³; None if it has no stress.
        state: charge and spin multiplicity.
    """

    numbers: NDArray[np.int32]
    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    volume: float | None
    state: ElectronicState = ElectronicState()


def prepare(source: StructureLike, index: int) -> Prepared:
    """Check a structure and turn it into plain arrays.

    Raises:
        BadInput: no atoms, or periodic cell vectors without a volume.
        RunFailed: positions or a periodic cell that are not finite, as after a simulation has blown up.
    """
    numbers = np.array(source.numbers, dtype=np.int32)
    positions = np.array(source.positions, dtype=np.float64, order="C").reshape(-1, 3)
    pbc = np.empty(3, dtype=bool)
    pbc[:] = source.pbc
    if len(numbers) == 0 or len(numbers) != len(positions):
        raise BadInput(
            f"structure {index}: expected one position per atom, "
            f"got {len(numbers)} atomic numbers and {len(positions)} positions"
        )
    # the sum of squares is cheap, and bounds each of them
    if not np.vdot(positions, positions) < FARTHEST**2:
        _require_near(positions, index)
    cell, volume, periodic = np.zeros((3, 3)), None, pbc.tolist()
    if True in periodic:
        cell = np.array(getattr(source.cell, "array", source.cell), dtype=np.float64, order="C").reshape(3, 3)
        volume = _volume(cell, pbc, index)
        if False in periodic:
            cell[~pbc] = 0.0
    return Prepared(numbers, positions, cell, pbc, volume)


def _volume(cell: Array, pbc: NDArray[np.bool_], index: int) -> float | None:
    """Volume of a sound cell, Å³; None if it has none, as a slab without a third vector."""
    (a, b, c), (d, e, f), (g, h, i) = rows = cell.tolist()
    volume = abs(a * (e * i - f * h) + b * (f * g - d * i) + c * (d * h - e * g))
    if sum(abs(x) for row in rows for x in row) < FARTHEST and volume >= 1e-6:
        return float(volume)
    if not (np.isfinite(cell).all() and (np.abs(cell[pbc]) < FARTHEST).all()):
        raise RunFailed(f"structure {index}: the cell is not finite or out of bounds: {rows}; {BLOWN_UP}")
    periodic = cell[pbc]
    if volume < 1e-6 and not np.linalg.det(periodic @ periodic.T) > 1e-12:
        raise BadInput(
            f"structure {index}: the cell has no volume along its periodic directions "
            f"(pbc = {pbc.tolist()}, cell = {rows}); set pbc=False or give a cell"
        )
    return volume or None


def _require_near(positions: Array, index: int) -> None:
    near = (np.abs(positions) < FARTHEST).all(axis=1)
    if not near.all():
        atom = int(np.argmin(near))
        raise RunFailed(
            f"structure {index}: position of atom {atom} is not finite or out of bounds: "
            f"{positions[atom]} Å; {BLOWN_UP}"
        )


def in_vacuum(structure: Prepared, cutoff: float) -> bool:
    """Whether no periodic image of an atom can lie within `cutoff` of an atom, and no atom is wrapped."""
    if True not in structure.pbc.tolist():
        return True
    if not structure.pbc.all():
        return False
    heights = 1.0 / np.linalg.norm(np.linalg.inv(structure.cell), axis=0)  # between opposite faces
    return bool(heights.min() >= cutoff + np.linalg.norm(np.ptp(structure.positions, axis=0)))
