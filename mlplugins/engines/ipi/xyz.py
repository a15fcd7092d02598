"""i-PI's xyz files: start file (cell and units in the comment line, cell turned), frames of a trajectory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.dynamics.output import integer, skip
from mlplugins.errors import BadInput

NO_CELL_A = 1000.0
"""Edge of the cell that i-PI is given along directions that have none, Å."""


class Upright(NamedTuple):
    """A structure in i-PI's orientation.

    Attributes:
        atoms: a along x, b in the xy plane, no cell vector missing.
        rotation: (3, 3), `atoms.positions = given.positions @ rotation`.
    """

    atoms: Atoms
    rotation: NDArray[np.float64]


def upright(given: Atoms) -> Upright:
    """Turn a structure so that i-PI can hold its cell; missing cell vectors become long ones.

    Raises:
        BadInput: a left-handed cell.

    >>> cell = [[0, 2, 0], [-2, 0, 0], [0, 0, 2]]
    >>> upright(Atoms("H", cell=cell, pbc=True)).atoms.cell[0].tolist()
    [2.0, 0.0, 0.0]
    """
    atoms = given.copy()
    for k in np.flatnonzero(~given.cell.array.any(axis=1)):
        atoms.cell[k] = NO_CELL_A * given.cell.complete()[k]
    if atoms.cell.handedness < 0:
        raise BadInput("i-PI needs a right-handed cell: exchange two cell vectors")
    cell, back = atoms.cell.standard_form()
    atoms.set_cell(cell)
    atoms.set_positions(atoms.positions @ back.T, apply_constraint=False)
    return Upright(atoms, back.T)


def write_xyz(path: Path, atoms: Atoms) -> None:
    """Write i-PI's xyz (Å) with all digits; the cell must be upright."""
    columns = " ".join(f"{value:.16g}" for value in atoms.cell.array.T.ravel())
    rows = [
        f"{symbol:3s} " + " ".join(f"{x: .16e}" for x in position)
        for symbol, position in zip(atoms.get_chemical_symbols(), atoms.positions)
    ]
    head = f"{len(atoms)}\n# CELL{{H}}: {columns} positions{{angstrom}} cell{{angstrom}}\n"
    path.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


def whole_frames(path: Path) -> Iterator[tuple[int, int]]:
    """(step, end in bytes) of every whole frame of an i-PI xyz file."""
    with path.open("rb") as stream:
        while line := stream.readline():
            atoms = integer(line)
            found = re.search(rb"Step:\s*(\d+)", stream.readline())
            if atoms < 0 or found is None or not skip(stream, atoms):
                return
            yield int(found.group(1)), stream.tell()
