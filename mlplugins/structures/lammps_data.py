"""LAMMPS data files, known by their content: ASE knows them by the ending .lammps-data alone.

A file says neither its units (but `write_data` does in its first line) nor, without a comment behind `Atoms`,
its atom style. Lengths are Å in both units that are read; the unit of velocities shows in their temperature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import ase.io
from ase import Atoms
from ase.io.formats import open_with_compression

from mlplugins.errors import BadInput

HEADER_LINES = 60
"""Within which the number of atoms and the box stand."""
UNITS = ("metal", "real")
"""Of LAMMPS, with lengths in Å."""
COLUMNS = {"atomic": (1, 2), "charge": (1, 3), "molecular": (2, 3), "full": (2, 4)}
"""Column of the type and of x in the atom styles that ASE reads."""
NUMBER = re.compile(r"^\s*(\d{1,18})\s+atoms\b", re.MULTILINE)
TYPES = re.compile(r"^\s*(\d{1,9})\s+atom\s+types\b", re.MULTILINE)
BOX = re.compile(r"^[^#\n]*\bxlo\s+xhi\b|^[^#\n]*\bavec\b", re.MULTILINE)
LABELLED = re.compile(r"^\s*Atom\s+Type\s+Labels\b", re.MULTILINE)
STATED = re.compile(r"\bunits\s*=\s*(\w+)")
ATOMS = re.compile(r"\s*Atoms\s*(?:#\s*(\w+).*)?$")
LOOKED_AT = 2000
"""Lines of atoms that the atom style is told by."""


COLD_K = 0.01
"""Of velocities in Å/ps; what seems colder is in Å/fs (units real)."""


def recognises(path: str) -> bool:
    """Whether a file begins like a LAMMPS data file."""
    try:
        with open_with_compression(path, "r") as lines:
            start = "".join(islice(lines, HEADER_LINES))
    except (OSError, ValueError, EOFError):
        return False
    return bool(NUMBER.search(start) and BOX.search(start) and "ITEM:" not in start)


def read(path: str) -> Atoms:
    """The structure, periodic in all directions, with ASE's types.

    Raises:
        BadInput: units without lengths in Å, an atom style that nobody can tell, no atoms.
    """
    units, style = _described(path)
    more = {"format": "lammps-data", "atom_style": style}
    atoms: Atoms = ase.io.read(path, index=0, units=units or "metal", **more)
    if units is None and atoms.has("momenta") and atoms.get_temperature() < COLD_K:
        atoms = ase.io.read(path, index=0, units="real", **more)
    return atoms


def _described(path: str) -> tuple[str | None, str]:
    """Units, None where the file does not state them, and the atom style."""
    header: list[str] = []
    with open_with_compression(path, "r") as lines:
        title = next(lines, "")
        match = None
        for line in lines:
            if match := ATOMS.match(line):
                break
            header.append(line)
        text = "".join(header)
        rows = list(_rows(lines, int((NUMBER.findall(text) or ["0"])[0])))
    if match is None or not rows:
        raise BadInput(f"{path}: a LAMMPS data file without atoms; expected the section Atoms")
    units = STATED.search(title)
    if units and units[1] not in UNITS:
        raise BadInput(
            f"{path}: a LAMMPS data file in units {units[1]}: expected {' or '.join(UNITS)} (Å); convert it"
        )
    if LABELLED.search(text) and any(word[:1].isalpha() for row in rows for word in row[1:4]):
        raise BadInput(
            f"{path}: a LAMMPS data file whose types are labels, which ASE gives to other atoms where they "
            "are not sorted: write it with numbers (write_data without `types labels`)"
        )
    style = match[1] or _style(rows, int((TYPES.findall(text) or ["0"])[0]), path)
    return units[1] if units else None, style


def _rows(lines: Iterator[str], number: int) -> Iterator[list[str]]:
    """Columns of the first atoms."""
    next(lines, None)
    for line in islice(lines, min(number, LOOKED_AT)):
        yield line.partition("#")[0].split()


def _style(rows: list[list[str]], n_types: int, path: str) -> str:
    """The only atom style that the columns of a file can be of.

    >>> _style([["1", "2", "-1.5", "0.1", "0.2", "0.3"]], 2, "x.data")
    'charge'
    """
    able = [name for name, where in COLUMNS.items() if all(_fits(row, where, n_types) for row in rows)]
    if len(able) == 1:
        return able[0]
    several = f"can be of atom_style {' or '.join(able)}" if able else f"is of none of {', '.join(COLUMNS)}"
    raise BadInput(
        f"{path}: a LAMMPS data file whose section Atoms ({len(rows[0])} columns) {several}: name the style "
        "behind it, 'Atoms # charge', as write_data does"
    )


def _fits(row: list[str], where: tuple[int, int], n_types: int) -> bool:
    """Whether a line has as many columns, with or without image flags, and whole numbers where due."""
    kind, x = where
    if len(row) not in (x + 3, x + 6):
        return False
    whole = [*row[: kind + 1], *row[x + 3 :]]
    return all(word.lstrip("-").isdigit() for word in whole) and 1 <= int(row[kind]) <= n_types
