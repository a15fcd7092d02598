"""i-PI's start file: an xyz with cell and units in the comment line, the cell turned as i-PI wants it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms

from mlplugins.errors import BadInput

NO_CELL_A = 1000.0
"""Edge of the cell that i-PI is given along directions that have none, Å."""


def upright(atoms: Atoms) -> Atoms:
    """The structure turned so that its cell is as i-PI wants it: a along x, b in the xy plane, none missing.

    Raises:
        BadInput: a left-handed cell.

    >>> upright(Atoms("H", cell=[[0, 2, 0], [-2, 0, 0], [0, 0, 2]], pbc=True)).cell.array.tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    """
    turned = atoms.copy()
    for k in np.flatnonzero(~atoms.cell.array.any(axis=1)):
        turned.cell[k] = NO_CELL_A * atoms.cell.complete()[k]
    if turned.cell.handedness < 0:
        raise BadInput("i-PI needs a right-handed cell: exchange two cell vectors")
    cell, rotation = turned.cell.standard_form()
    turned.set_cell(cell)
    turned.set_positions(turned.positions @ rotation.T)
    return turned


def write_xyz(path: Path, atoms: Atoms) -> None:
    """Write i-PI's xyz (Å) with all digits; the cell must be upright."""
    columns = " ".join(f"{value:.16g}" for value in atoms.cell.array.T.ravel())
    rows = [
        f"{symbol:3s} " + " ".join(f"{x: .16e}" for x in position)
        for symbol, position in zip(atoms.get_chemical_symbols(), atoms.positions)
    ]
    head = f"{len(atoms)}\n# CELL{{H}}: {columns} positions{{angstrom}} cell{{angstrom}}\n"
    path.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
