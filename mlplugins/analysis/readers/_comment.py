"""Comment lines of xyz trajectories: i-PI's, and the keys of extended xyz that a trajectory needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mlplugins.analysis.readers._text import Floats
from mlplugins.errors import BadInput, nearest
from mlplugins.structures import comments
from mlplugins.units import A_PER_BOHR

LENGTH_A = {"angstrom": 1.0, "atomic_unit": A_PER_BOHR, "bohr": A_PER_BOHR, "nanometer": 10.0, "ase": 1.0}
INTEGER = re.compile(r"\b(Step|Bead):\s*(-?\d{1,18})\b")
CLOCKS = ("time", "Time")
MORE = {
    **{name: ("velocities", 3) for name in ("velo", "vel", "velocity", "velocities")},
    **{name: ("masses", 1) for name in ("mass", "masses")},
    "momenta": ("momenta", 3),
}
"""Columns of a trajectory beside its positions: what they are, and their number."""
STEPS = ("step", "Step", "Timestep")  # Timestep: LAMMPS' dump extxyz, OVITO


@dataclass
class Comment:
    """What a comment line says: cell in Å, factor of the positions, step, time, bead, corner, columns.

    `also` holds the first column of momenta, velocities or masses.
    """

    cell: Floats
    length: float = 1.0
    step: int | None = None
    time_fs: float | None = None
    clock: float | None = None
    bead: int | None = None
    periodic: tuple[bool, bool, bool] = (True, True, True)
    origin: Floats | None = None
    columns: int = 4
    name_column: int = 0
    position_column: int = 1
    also: Mapping[str, int] = field(default_factory=dict)


def parse(text: str, where: str) -> Comment:
    """Read a comment line, i-PI's or extended xyz.

    >>> found = parse('Lattice="9 0 0 0 9 0 0 0 9" stress="1 2 3 4 5 6" Timestep=40', "here")
    >>> found.step, found.cell[0].tolist()
    (40, [9.0, 0.0, 0.0])

    Raises:
        BadInput: no cell, a cell without volume, forces or velocities instead of positions, or words where
            numbers belong.
    """
    cell = comments.ipi_cell(text, where)
    return _extended(text, where) if cell is None else _ipi(text, cell, where)


def _length(unit: str, where: str) -> float:
    if (unit or "atomic_unit") not in LENGTH_A:
        raise BadInput(f"{where}: unknown unit of length '{unit}': {nearest(unit, LENGTH_A)}")
    return LENGTH_A[unit or "atomic_unit"]


def _quantity(text: str, where: str) -> tuple[str, float, float]:
    """Name, length unit and cell unit that i-PI prints, e.g. `positions{angstrom}  cell{atomic_unit}`."""
    units = comments.ipi_units(text)
    cell = _length(units.pop("cell", "atomic_unit"), where)
    name, unit = next(iter(units.items()), ("positions", "atomic_unit"))
    if name not in comments.IPI_POSITIONS or len(units) > 1:
        raise BadInput(
            f"{where}: holds '{', '.join(units)}', not positions; give the trajectory of "
            "positions or x_centroid"
        )
    return name, _length(unit, where), cell


def ipi_title(text: str, where: str) -> Comment:
    """The title of a frame of i-PI's pdb files; `cell` is the unit of the cell times the unit matrix.

    Raises:
        BadInput: forces or velocities instead of positions, or an unknown unit.
    """
    _, length, cell_length = _quantity(text, where)
    integers = _integers(text)
    return Comment(np.eye(3) * cell_length, length, step=integers.get("Step"), bead=integers.get("Bead"))


def _ipi(text: str, cell: comments.IpiCell, where: str) -> Comment:
    _, length, cell_length = _quantity(cell.rest, where)
    integers = _integers(text)
    return Comment(cell.vectors * cell_length, length, step=integers.get("Step"), bead=integers.get("Bead"))


def _integers(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in INTEGER.findall(text)}


def _extended(text: str, where: str) -> Comment:
    given = {key: comments.bare(value) for _, key, value in comments.pairs(text)}
    info = {comments.KEYWORDS.get(key.lower(), key): value for key, value in given.items()} | {
        key: value for key, value in given.items() if key in comments.KEYWORDS.values()
    }
    periodic = comments.periodic(info.get("pbc", "T T T"), where)
    if "Lattice" not in info and not any(periodic):
        lattice = np.zeros(9)
    elif "Lattice" not in info:
        raise BadInput(
            f"{where}: no cell in the comment line '{text[:80]}'; a conductivity needs the volume: expected "
            'Lattice="…" (extended xyz) or CELL(abcABC): … (i-PI)'
        )
    else:
        lattice = comments.floats(info["Lattice"], "Lattice", where)
    if len(lattice) != 9:
        raise BadInput(f"{where}: Lattice of {len(lattice)} numbers ('{text[:120]}'); expected 9")
    comment = Comment(lattice.reshape(3, 3), periodic=periodic)
    if "Origin" in info:
        comment.origin = comments.floats(info["Origin"], "Origin", where)
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
    comment.time_fs = (
        float(comments.floats(info["time_fs"], "time_fs", where)[0]) if "time_fs" in info else None
    )
    clock = next((info[key] for key in CLOCKS if key in info), "")
    comment.clock = float(clock) if comments.is_number(clock) else None
    _layout(info, wanted, comment, where)
    return comment


def _whole(text: str, name: str, where: str) -> int:
    value = comments.floats(text, name, where)
    if value.size != 1 or value[0] != np.rint(value[0]) or abs(value[0]) > 2.0**62:
        raise BadInput(f"{where}: {name}={text[:40]}; expected a whole number of at most 64 bits")
    return int(text) if text.lstrip("+-").isdigit() else int(value[0])


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
    comment.also = {MORE[name][0]: columns[name] for name in MORE if sizes.get(name) == MORE[name][1]}
