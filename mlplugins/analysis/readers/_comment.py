"""Comment lines of xyz trajectories: i-PI's, and the keys of extended xyz that a trajectory needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase.geometry import cellpar_to_cell

from mlplugins.analysis.readers._text import Floats
from mlplugins.errors import BadInput, nearest
from mlplugins.units import A_PER_BOHR

LENGTH_A = {"angstrom": 1.0, "atomic_unit": A_PER_BOHR, "bohr": A_PER_BOHR, "nanometer": 10.0, "ase": 1.0}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[Ee][-+]?\d+)?"
CELL = re.compile(r"CELL[(\[{](abcABC|H|GENH)[)\]}]:\s*((?:[-+0-9.Ee]+\s+){5,8}[-+0-9.Ee]+)")
QUANTITY = re.compile(r"(\w+)\{([^}\s]*)\}")
INTEGER = re.compile(r"\b(Step|Bead):\s*(-?\d{1,18})\b")
PAIR = re.compile(r"""([^\s=]+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^=]*\](?=\s|$)|[^\s"]+)""")
POSITION_NAMES = ("positions", "x_centroid", "x_centroid_even", "x_centroid_odd", "x")
STEPS = ("step", "Step", "Timestep")  # Timestep: LAMMPS' dump extxyz, OVITO
TRUE, FALSE = ("t", "true", "1"), ("f", "false", "0")


@dataclass
class Comment:
    """What a comment line says: cell in Å, factor of the positions, step, time, bead, corner, columns."""

    cell: Floats
    length: float = 1.0
    step: int | None = None
    time_fs: float | None = None
    bead: int | None = None
    periodic: tuple[bool, bool, bool] = (True, True, True)
    origin: Floats | None = None
    columns: int = 4
    name_column: int = 0
    position_column: int = 1


def parse(text: str, where: str) -> Comment:
    """Read a comment line, i-PI's or extended xyz.

    >>> found = parse('Lattice="9 0 0 0 9 0 0 0 9" stress="1 2 3 4 5 6" Timestep=40', "here")
    >>> found.step, found.cell[0].tolist()
    (40, [9.0, 0.0, 0.0])

    Raises:
        BadInput: no cell, a cell without volume, forces or velocities instead of positions, or words where
            numbers belong.
    """
    return _ipi(text, where) if CELL.search(text) else _extended(text, where)


def _length(unit: str, where: str) -> float:
    if (unit or "atomic_unit") not in LENGTH_A:
        raise BadInput(f"{where}: unknown unit of length '{unit}': {nearest(unit, LENGTH_A)}")
    return LENGTH_A[unit or "atomic_unit"]


def _quantity(text: str, where: str) -> tuple[str, float, float]:
    """Name, length unit and cell unit that i-PI prints, e.g. `positions{angstrom}  cell{atomic_unit}`."""
    units = dict(QUANTITY.findall(text))
    cell = _length(units.pop("cell", "atomic_unit"), where)
    name, unit = next(iter(units.items()), ("positions", "atomic_unit"))
    if name not in POSITION_NAMES or len(units) > 1:
        raise BadInput(
            f"{where}: holds '{', '.join(units)}', not positions; give the trajectory of "
            "positions or x_centroid"
        )
    return name, _length(unit, where), cell


def _ipi(text: str, where: str) -> Comment:
    found = CELL.search(text)
    kind, words = (found.group(1), found.group(2).split()) if found else ("", [])
    numbers = _floats(" ".join(words), "cell", where)
    _, length, cell_length = _quantity(text[found.end() :] if found else text, where)
    if kind == "abcABC" and len(numbers) == 6:
        lengths, angles = numbers[:3], numbers[3:]
        if not ((lengths > 0).all() and (angles > 0).all() and (angles < 180).all()):
            raise BadInput(
                f"{where}: cell of lengths {' '.join(words[:3])} and angles {' '.join(words[3:])}; expected "
                "lengths above zero and angles between 0 and 180 degrees"
            )
        x, y, z = np.cos(np.radians(angles))
        if not 1 + 2 * x * y * z - x * x - y * y - z * z > 1e-9:  # (volume / a b c)²
            raise BadInput(f"{where}: no cell has the angles {' '.join(words[3:])}; the file is damaged")
        cell = np.array(cellpar_to_cell(numbers))
    elif kind in ("H", "GENH") and len(numbers) == 9:
        cell = numbers.reshape(3, 3).T  # i-PI has the vectors as columns
    else:
        raise BadInput(f"{where}: cannot read the cell in '{text[:80]}'; expected 6 or 9 numbers")
    integers = _integers(text)
    return Comment(cell * cell_length, length, step=integers.get("Step"), bead=integers.get("Bead"))


def _integers(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in INTEGER.findall(text)}


def _extended(text: str, where: str) -> Comment:
    info = {key: _bare(value) for key, value in PAIR.findall(text)}
    named = next((key for key in info if key.lower() == "lattice"), None)
    periodic = _periodic(info.get("pbc", "T T T"), where)
    if named is None and not any(periodic):
        lattice = np.zeros(9)
    elif named is None:
        raise BadInput(
            f"{where}: no cell in the comment line '{text[:80]}'; a conductivity needs the volume: expected "
            'Lattice="…" (extended xyz) or CELL(abcABC): … (i-PI)'
        )
    else:
        lattice = _floats(info[named], named, where)
    if len(lattice) != 9:
        raise BadInput(f"{where}: Lattice of {len(lattice)} numbers ('{text[:120]}'); expected 9")
    comment = Comment(lattice.reshape(3, 3), periodic=periodic)
    if "Origin" in info:
        comment.origin = _floats(info["Origin"], "Origin", where)
        if comment.origin.shape != (3,):
            raise BadInput(f"{where}: Origin '{info['Origin'][:80]}'; expected 3 numbers")
    wanted = "pos"
    steps = {key: info[key] for key in (*STEPS, "Bead") if key in info}
    if "ipi_comment" in info:  # i-PI's output format 'ase' names the column after the quantity
        quantity, comment.length, cell_length = _quantity(info["ipi_comment"], where)
        wanted = quantity if quantity != "positions" else wanted
        comment.cell = comment.cell * cell_length
        steps |= {key: str(value) for key, value in _integers(info["ipi_comment"]).items()}
    comment.step = next((_whole(steps[key], key, where) for key in STEPS if key in steps), None)
    comment.bead = _whole(steps["Bead"], "Bead", where) if "Bead" in steps else None
    comment.time_fs = float(_floats(info["time_fs"], "time_fs", where)[0]) if "time_fs" in info else None
    _layout(info, wanted, comment, where)
    return comment


def _bare(value: str) -> str:
    """Without the quotes or brackets around it."""
    bare = value[1:-1] if value[0] in "\"'{[" else value
    return bare.replace("[", " ").replace("]", " ") if value[0] == "[" else bare


def _floats(text: str, name: str, where: str) -> Floats:
    try:
        values = np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError as error:
        raise BadInput(f"{where}: {name} '{text[:80]}': {error}; expected numbers") from error
    if not values.size or not np.isfinite(values).all():
        raise BadInput(f"{where}: {name} '{text[:80]}'; expected finite numbers")
    return values


def _whole(text: str, name: str, where: str) -> int:
    value = _floats(text, name, where)
    if value.size != 1 or value[0] != np.rint(value[0]) or abs(value[0]) > 2.0**62:
        raise BadInput(f"{where}: {name}={text[:40]}; expected a whole number of at most 64 bits")
    return int(text) if text.lstrip("+-").isdigit() else int(value[0])


def _periodic(text: str, where: str) -> tuple[bool, bool, bool]:
    words = [word.lower() for word in text.replace(",", " ").split()]
    flags = [word in TRUE for word in words] * (3 if len(words) == 1 else 1)
    if len(flags) != 3 or not all(word in (*TRUE, *FALSE) for word in words):
        raise BadInput(f"{where}: pbc '{text[:40]}'; expected three of T and F")
    return flags[0], flags[1], flags[2]


def _layout(info: Mapping[str, str], wanted: str, comment: Comment, where: str) -> None:
    """Find the columns of the element and of the positions in `Properties=…`."""
    properties = info.get("Properties", "species:S:1:pos:R:3")
    words = properties.split(":")
    if len(words) % 3 or not all(count.isdigit() and 0 < len(count) < 5 for count in words[2::3]):
        raise BadInput(f"{where}: Properties={properties[:120]}; expected name:type:columns of each")
    start, columns, sizes = 0, {}, {}
    for name, count in zip(words[::3], words[2::3]):
        columns[name], sizes[name] = start, int(count)
        start += int(count)
    if (sizes.get(wanted), sizes.get("species")) != (3, 1):
        raise BadInput(
            f"{where}: Properties={properties[:120]}; expected species and {wanted} (3 columns) among them"
        )
    comment.columns, comment.name_column, comment.position_column = start, columns["species"], columns[wanted]
