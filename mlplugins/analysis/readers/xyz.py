"""xyz trajectories: i-PI's (cell and units in the comment line) and extended xyz as ASE and others "
"write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.geometry import cellpar_to_cell
from ase.io.extxyz import key_val_str_to_dict

from mlplugins.analysis.readers._text import (
    Floats,
    Frame,
    Lines,
    ReadOptions,
    Table,
    Truncated,
    open_bytes,
)
from mlplugins.errors import BadInput, nearest
from mlplugins.units import A_PER_BOHR

NAME = "xyz (i-PI or extended)"
LENGTH_A = {"angstrom": 1.0, "atomic_unit": A_PER_BOHR, "bohr": A_PER_BOHR, "nanometer": 10.0, "ase": 1.0}
CELL = re.compile(r"CELL[(\[{](abcABC|H|GENH)[)\]}]:\s*((?:[-+0-9.Ee]+\s+){5,8}[-+0-9.Ee]+)")
QUANTITY = re.compile(r"(\w+)\{(\w*)\}")
POSITION_NAMES = ("positions", "x_centroid", "x")
NEXT_FRAME = re.compile(rb"(?:^|\n)( *\d+ *\n)")  # a line with nothing but a count
INTEGER = re.compile(r"\b(Step|Bead):\s*(-?\d+)")


def matches(path: Path, head: bytes) -> bool:
    """Whether the first line is a number of atoms and the fourth column of the third line a number."""
    lines = head.splitlines()
    if len(lines) < 3 or not lines[0].strip().isdigit():
        return False
    return len(lines[2].split()) >= 4


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames; lengths are converted to Å from the units that i-PI prints in the comment line."""
    reader = _Reader(path)
    with open_bytes(path, options) as stream:
        lines = Lines(stream, path)
        while True:
            try:
                frame = reader.frame(lines)
            except Truncated as cut:
                options.warnings.append(
                    f"{path}: {cut}; that frame is incomplete (a killed run?) and was dropped"
                )
                if not cut.more:
                    return
                continue
            if frame is None:
                return
            yield frame


@dataclass
class _Comment:
    """What a comment line says: cell in Å, factor of the positions, step, time, bead, columns."""

    cell: Floats
    length: float = 1.0
    step: int | None = None
    time_fs: float | None = None
    bead: int | None = None
    periodic: tuple[bool, bool, bool] = (True, True, True)
    columns: int = 4
    name_column: int = 0
    position_column: int = 1


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self._tables: dict[tuple[int, int, int], Table] = {}

    def frame(self, lines: Lines) -> Frame | None:
        line = lines.one("ends between two frames")
        while line and not line.strip():
            line = lines.one("ends between two frames")
        if not line:
            return None
        self.number += 1
        where = f"{self.path}, frame {self.number}"
        if not line.endswith(b"\n"):
            raise Truncated(f"ends inside frame {self.number}")
        if not line.strip().isdigit():
            raise BadInput(
                f"{where}: expected the number of atoms, found '{line[:60].decode('utf-8', 'replace')}'"
            )
        count = int(line)
        text = lines.take(1, f"ends inside frame {self.number}").decode("utf-8", "replace").strip()
        comment = _ipi_comment(text, where) if _is_ipi(text) else _extxyz_comment(text, where)
        block = lines.take(count, f"ends inside frame {self.number}")
        if (next_frame := NEXT_FRAME.search(block)) is not None:
            lines.back(len(block) - next_frame.start(1))
            raise Truncated(f"frame {self.number} is cut by the next one", more=True)
        found = self._table(comment).parse(block, count, where)
        return Frame(
            symbols=found.names,
            positions=found.values.T * comment.length,
            cell=comment.cell,
            periodic=comment.periodic,
            step=comment.step,
            time_fs=comment.time_fs,
            bead=comment.bead,
        )

    def _table(self, comment: _Comment) -> Table:
        key = (comment.columns, comment.name_column, comment.position_column)
        if key not in self._tables:
            first = comment.position_column
            self._tables[key] = Table(comment.columns, range(first, first + 3), comment.name_column)
        return self._tables[key]


def _is_ipi(text: str) -> bool:
    return CELL.search(text) is not None


def _length(unit: str, where: str) -> float:
    if (unit or "atomic_unit") not in LENGTH_A:
        raise BadInput(f"{where}: unknown unit of length '{unit}': {nearest(unit, LENGTH_A)}")
    return LENGTH_A[unit or "atomic_unit"]


def _quantity(text: str, where: str) -> tuple[str, float, float]:
    """Name, length unit and cell unit that i-PI prints, e.g. `positions{angstrom}  cell{atomic_unit}`."""
    units = dict(QUANTITY.findall(text))
    cell = _length(units.pop("cell", "atomic_unit"), where)
    name, unit = next(iter(units.items()), ("positions", "atomic_unit"))
    if name not in POSITION_NAMES:
        raise BadInput(
            f"{where}: holds '{name}', not positions; give the trajectory of positions or x_centroid"
        )
    return name, _length(unit, where), cell


def _ipi_comment(text: str, where: str) -> _Comment:
    found = CELL.search(text)
    kind, numbers = (found.group(1), [float(word) for word in found.group(2).split()]) if found else ("", [])
    _, length, cell_length = _quantity(text, where)
    if kind == "abcABC" and len(numbers) >= 6:
        cell = np.array(cellpar_to_cell(numbers[:6]))
    elif kind in ("H", "GENH") and len(numbers) >= 9:
        cell = np.array(numbers[:9]).reshape(3, 3).T  # i-PI has the vectors as columns
    else:
        raise BadInput(f"{where}: cannot read the cell in '{text[:80]}'")
    integers = {key: int(value) for key, value in INTEGER.findall(text)}
    return _Comment(cell * cell_length, length, step=integers.get("Step"), bead=integers.get("Bead"))


def _extxyz_comment(text: str, where: str) -> _Comment:
    info: dict[str, Any] = key_val_str_to_dict(text)
    if "Lattice" not in info and "lattice" not in info:
        raise BadInput(
            f"{where}: no cell in the comment line '{text[:80]}'; a conductivity needs the volume: expected "
            'Lattice="…" (extended xyz) or CELL(abcABC): … (i-PI)'
        )
    # ase reads Lattice column by column
    lattice = np.asarray(info.get("Lattice", info.get("lattice")), dtype=float).reshape(3, 3).T
    comment = _Comment(lattice)
    pbc = np.broadcast_to(np.asarray(info.get("pbc", True)), 3)
    comment.periodic = (bool(pbc[0]), bool(pbc[1]), bool(pbc[2]))
    wanted = "pos"
    if "ipi_comment" in info:  # i-PI's output format 'ase' names the column after the quantity
        quantity, comment.length, cell_length = _quantity(str(info["ipi_comment"]), where)
        wanted = quantity if quantity != "positions" else wanted
        comment.cell = comment.cell * cell_length
        info.update({key: int(value) for key, value in INTEGER.findall(str(info["ipi_comment"]))})
    _layout(str(info.get("Properties", "species:S:1:pos:R:3")), wanted, comment, where)
    step = info.get("step", info.get("Step"))
    comment.step = int(step) if step is not None else None
    comment.bead = info.get("Bead")
    comment.time_fs = float(info["time_fs"]) if "time_fs" in info else None
    return comment


def _layout(properties: str, wanted: str, comment: _Comment, where: str) -> None:
    """Find the columns of the element and of the positions in `Properties=…`."""
    words = properties.split(":")
    start = 0
    columns = {}
    for name, count in zip(words[::3], words[2::3]):
        columns[name] = start
        start += int(count)
    if wanted not in columns or "species" not in columns:
        raise BadInput(f"{where}: Properties={properties}; expected species and {wanted} among them")
    comment.columns, comment.name_column, comment.position_column = start, columns["species"], columns[wanted]
