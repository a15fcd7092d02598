"""LAMMPS data files: the box, atom types by element and mass, positions and velocities with all digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from ase.geometry import complete_cell
from numpy.typing import NDArray

from mlplugins.elements import require_known
from mlplugins.errors import BadInput
from mlplugins.units import FS_PER_PS

Array = NDArray[np.float64]

MARGIN = 5.0
"""Empty space around the atoms along non-periodic directions, Å."""

MASS_DIGITS = 8
"""Masses that agree to so many decimals (u) are one atom type."""

_TILT_TOLERANCE = 1e-12  # Å: a smaller tilt is rounding


class Box(NamedTuple):
    """LAMMPS' restricted box and the rotation that leads there: r_lammps = r @ rotation.

    Attributes:
        cell: (3, 3) lower triangular, rows are the cell vectors, Å.
        origin: (3,) lower corner, in the rotated frame, Å.
        rotation: (3, 3) proper orthogonal.
        boundary: arguments of the `boundary` command.
    """

    cell: Array
    origin: Array
    rotation: Array
    boundary: str


def restricted_box(atoms: Atoms) -> Box:
    """LAMMPS' box for a structure: right-handed, lower triangular, tilts below half a box length.

    A non-periodic direction becomes perpendicular to the others and encloses the atoms with a margin.

    >>> from ase.build import bulk
    >>> restricted_box(bulk("Ar", "fcc", 5.3)).boundary
    'p p p'
    """
    pbc = np.asarray(atoms.pbc, dtype=bool)
    cell = np.array(atoms.cell.array)
    cell[~pbc] = 0.0
    if pbc.any() and np.linalg.matrix_rank(cell[pbc], tol=1e-8) < pbc.sum():
        raise BadInput(f"the cell has no volume along its periodic directions: {atoms.cell.array.tolist()}")
    cell = np.array(complete_cell(cell))
    if np.linalg.det(cell) < 0:
        cell[np.flatnonzero(~pbc)[-1] if not pbc.all() else 2] *= -1  # the same lattice
    lower, rotation = _lower_triangular(cell)
    positions = atoms.positions @ rotation
    origin = np.zeros(3)
    if not pbc.all():
        fractional = positions @ np.linalg.inv(lower)
        for axis in np.flatnonzero(~pbc):
            # perpendicular to the other vectors, so that its length is free
            length = np.linalg.norm(lower[axis])
            low, high = (
                (0.0, 0.0) if not len(atoms) else (fractional[:, axis].min(), fractional[:, axis].max())
            )
            origin += (low - MARGIN / length) * lower[axis]
            lower[axis] *= high - low + 2 * MARGIN / length
    lower[np.abs(lower) < _TILT_TOLERANCE] = 0.0
    for row, column in ((2, 1), (2, 0), (1, 0)):
        lower[row] -= np.round(lower[row, column] / lower[column, column]) * lower[column]
    boundary = " ".join("p" if flag else "f" for flag in pbc)
    return Box(lower, origin, rotation, boundary)


def write_data(
    path: Path | str, atoms: Atoms, elements: Sequence[str], velocities: Array | None = None
) -> Box:
    """Write a LAMMPS data file (`atom_style atomic`, `units metal`) with all digits, masses and type labels.

    Args:
        path: file to write.
        atoms: the structure; standard masses unless it holds its own.
        elements: symbols in the order of the atom types; they may be more than occur. An element with several
            masses is named once for each of them, which then are taken in rising order (`type_order`).
        velocities: (N, 3), Å/fs.

    Returns:
        The box and rotation used; `atoms.positions @ box.rotation` are the positions in the file.

    Raises:
        BadInput: an element that is not in `elements`, or more masses of it than types; positions that
            are not finite; masses that are not positive; a flat periodic cell.
    """
    known = " ".join(elements)
    require_known(atoms.symbols, elements, "elements ", f" are in the structure but not in {known}")
    if not np.isfinite(atoms.positions).all():
        raise BadInput("the structure has positions that are not finite numbers")
    if not (np.isfinite(atoms.get_masses()) & (atoms.get_masses() > 0)).all():
        raise BadInput(f"the structure has masses that are not positive: {atoms.get_masses().min():g} u")
    box = restricted_box(atoms)
    types, masses = _types(atoms, list(elements))
    lines = [f"{atoms.get_chemical_formula()}, written by mlplugins", "", f"{len(atoms)} atoms"]
    lines += [f"{len(elements)} atom types", ""]
    for axis, name in enumerate("xyz"):
        low = box.origin[axis]
        lines.append(f"{low:.17g} {low + box.cell[axis, axis]:.17g} {name}lo {name}hi")
    tilts = box.cell[[1, 2, 2], [0, 0, 1]]
    if tilts.any():
        lines.append("{:.17g} {:.17g} {:.17g} xy xz yz".format(*tilts))
    lines += ["", "Atom Type Labels", "", *(f"{k} {name}" for k, name in enumerate(_labels(elements), 1))]
    lines += ["", "Masses", ""]
    lines += [f"{k} {mass:.10g}  # {symbol}" for k, (symbol, mass) in enumerate(zip(elements, masses), 1)]
    lines += ["", "Atoms  # atomic", ""]
    lines += _rows(atoms.positions @ box.rotation, types)
    if velocities is not None:
        lines += ["", "Velocities", "", *_rows(np.asarray(velocities) * FS_PER_PS @ box.rotation)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return box


def type_order(atoms: Atoms) -> list[str]:
    """The element of each atom type of a structure's data file: by atomic number, then by mass.

    An element whose atoms have several masses (isotopes) has a type for each of them.

    >>> water = Atoms("H2O")
    >>> water.set_masses([1.008, 2.014, 15.999])
    >>> type_order(water)
    ['H', 'H', 'O']
    """
    return [symbol for _, _, symbol in sorted(set(_kinds(atoms)))]


def _kinds(atoms: Atoms) -> list[tuple[int, float, str]]:
    """Atomic number, mass and symbol of each atom."""
    masses = [round(float(mass), MASS_DIGITS) for mass in atoms.get_masses()]
    return list(zip(map(int, atoms.numbers), masses, atoms.symbols))


def _types(atoms: Atoms, elements: Sequence[str]) -> tuple[list[int], list[float]]:
    """Type of each atom, and mass of each type."""
    kinds = _kinds(atoms)
    types: dict[tuple[int, float, str], int] = {}
    masses = [float(atomic_masses[atomic_numbers[symbol]]) for symbol in elements]
    for symbol in dict.fromkeys(elements):
        places = [k for k, element in enumerate(elements) if element == symbol]
        found = sorted({kind for kind in kinds if kind[2] == symbol})
        if len(found) > len(places):
            named = ", ".join(f"{mass:g}" for _, mass, _ in found)
            raise BadInput(
                f"atoms of {symbol} have {len(found)} masses ({named} u), but {' '.join(elements)} has "
                f"{len(places)} type for them: name {symbol} once for each mass, as `type_order` does"
            )
        for place, kind in zip(places, found):
            types[kind] = place + 1
            masses[place] = kind[1]
    return [types[kind] for kind in kinds], masses


def _labels(elements: Sequence[str]) -> list[str]:
    """Labels of the types, each once: the element, from its second type on with a number.

    >>> _labels(["H", "H", "O"])
    ['H', 'H_2', 'O']
    """
    labels = []
    for k, symbol in enumerate(elements):
        place = list(elements[: k + 1]).count(symbol)
        labels.append(symbol if place == 1 else f"{symbol}_{place}")
    return labels


def _rows(values: Array, types: Sequence[int] | None = None) -> list[str]:
    lines = []
    for k, (x, y, z) in enumerate(values):
        kind = "" if types is None else f" {types[k]}"
        lines.append(f"{k + 1}{kind} {x:.17g} {y:.17g} {z:.17g}")
    return lines


def _lower_triangular(cell: Array) -> tuple[Array, Array]:
    """cell @ rotation = lower, with a positive diagonal."""
    q, r = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(r))
    return (r * signs[:, None]).T, q * signs
