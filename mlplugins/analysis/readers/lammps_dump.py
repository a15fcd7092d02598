"""LAMMPS text dumps (`dump custom` and `dump atom`): wrapped, scaled or unwrapped, any box, any
order of atoms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import (
    Floats,
    Frame,
    Lines,
    ReadOptions,
    Table,
    Truncated,
    require_room,
    whole_frames,
)
from mlplugins.analysis.witnesses import sampled
from mlplugins.errors import BadInput
from mlplugins.units import ASE_TIME_PER_FS, FS_PER_PS

NAME = "LAMMPS text dump"
TIME_FS = {"metal": FS_PER_PS, "real": 1.0}
POSITIONS = (("xu", "yu", "zu"), ("xsu", "ysu", "zsu"), ("x", "y", "z"), ("xs", "ys", "zs"))
IMAGES = ("ix", "iy", "iz")
VELOCITIES = ("vx", "vy", "vz")
MORE = {"mass": "masses", "q": "charges"}
"""Columns that are looked at once, and the fields of the frame that they become."""
COLD_EV = 1e-4
"""Kinetic energy of an atom at 1 K."""
REMEDY = (
    "write it with: dump 1 all custom 100 traj.lammpstrj id element xu yu zu, and dump_modify 1 "
    "element Li P S"
)


def matches(path: Path, head: bytes) -> bool:
    """Whether the file starts as a LAMMPS text dump."""
    return head.lstrip().startswith(b"ITEM:")


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames, atoms sorted by id; a frame that was cut by a killed run is dropped with a
    warning."""
    reader = _DumpReader(path, options)
    yield from whole_frames(path, options, reader.frame)


@dataclass
class _Header:
    step: int = -1
    atoms: int = -1
    time: float | None = None
    bounds: list[list[float]] = field(default_factory=list)
    bounds_line: str = ""
    columns: list[str] = field(default_factory=list)


class _DumpReader:
    """State that lasts from frame to frame: the units, the column layout, the order of atoms."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        self.type_map = options.type_map
        self.units: str | None = None
        self.use_map = False
        self._atoms: int | None = None
        self._with_velocities = options.velocities
        self._number = 0
        self._kind = "element"
        self._layout: tuple[list[str], Table] | None = None
        self._columns_seen: list[str] = []
        self._ids: Floats = np.array([])
        self._order: NDArray[np.intp] | slice = slice(None)
        self._sorted_ids: Floats = np.array([])
        self._masses: Floats = np.array([])  # of the first frame, if it has them
        self._symbols: NDArray[np.str_] = np.array([], dtype=str)
        self._kinds: NDArray[np.str_] = np.array([], dtype=str)  # elements or types in the order of the file

    def frame(self, lines: Lines) -> Frame | None:
        self.lines = lines
        header = self._header()
        if header is None:
            return None
        where = f"{self.path}, step {header.step}"
        if header.atoms != self._atoms:
            require_room(header.atoms, len(header.columns), self.path, where)
            self._atoms = header.atoms
        block = self.lines.take(header.atoms, f"ends inside the frame of step {header.step}")
        if (cut := block.find(b"ITEM:")) >= 0:
            self.lines.back(len(block) - cut)
            raise Truncated(f"the frame of step {header.step} is cut by the next one", more=True)
        return self._assemble(header, block, where)

    def _line(self, what: str) -> str:
        line = self.lines.one(f"ends inside {what}")
        if not line.endswith(b"\n"):
            raise Truncated(f"ends inside {what}")
        return line.decode("utf-8", "replace").strip()

    def _header(self) -> _Header | None:
        header = _Header()
        if not (line := self.lines.between_frames()):
            return None
        text = line.decode("utf-8", "replace").strip()
        while True:
            if not text.startswith("ITEM:"):
                raise BadInput(f"{self.path}: expected a line 'ITEM: …', found '{text[:60]}'; not a {NAME}")
            key = text.removeprefix("ITEM:").strip()
            if key.startswith("ATOMS"):
                header.columns = key.split()[1:]
                return header
            try:
                self._item(key, header)
            except BadInput:
                raise
            except (ValueError, IndexError) as error:
                raise BadInput(f"{self.path}: cannot read 'ITEM: {key}' ({error})") from error
            text = self._line("a frame header")

    def _item(self, key: str, header: _Header) -> None:
        what = f"'ITEM: {key}'"
        if key == "UNITS":
            self.units = self._line(what)
            if self.units not in TIME_FS:
                raise BadInput(
                    f"{self.path}: LAMMPS units '{self.units}'; expected metal or real (Å); convert the dump"
                )
        elif key == "TIMESTEP":
            header.step = int(self._line(what))
        elif key == "TIME":
            header.time = float(self._line(what))
        elif key == "NUMBER OF ATOMS":
            header.atoms = int(self._line(what))
        elif key.startswith("BOX BOUNDS"):
            header.bounds_line = key.removeprefix("BOX BOUNDS")
            header.bounds = [[float(word) for word in self._line(what).split()] for _ in range(3)]
        else:
            raise BadInput(f"{self.path}: unknown '{key}' in the dump; expected a {NAME}")

    def _assemble(self, header: _Header, block: bytes, where: str) -> Frame:
        names, table = self._columns(header.columns)
        more = self._wanted(header.columns)
        found = table.parse(block, header.atoms, where, [header.columns.index(name) for name in more])
        column = dict(zip(names, found.values))
        if found.ids is not self._ids or found.names is not self._kinds:
            self._sort(found.ids, where)
            self._set_symbols(found.names, where)
        order = self._order
        cell, origin, periodic = _box(header, where)
        positions, images, wrapped = _positions(column, cell, origin)
        factor = TIME_FS.get(self.units or "")
        return Frame(
            symbols=self._symbols,
            positions=positions[order],
            cell=cell,
            images=None if images is None else images[order],
            periodic=periodic,
            **{
                "velocities": self._velocities(column, order),
                "velocity_units": (1.0,) if self.units else (1.0, FS_PER_PS),
            }
            | (self._also(dict(zip(more, found.more[:, order]))) if more else {}),
            step=header.step if header.step >= 0 else None,
            time_fs=header.time * factor if header.time is not None and factor else None,
            clock=None if factor else header.time,  # in units of the run, which the file does not state
            origin=origin,
            wrapped=wrapped,
        )

    def _set_symbols(self, kinds: NDArray[np.str_], where: str) -> None:
        symbols = (self._from_types(kinds, where) if self.use_map else kinds)[self._order]
        if self._kind == "typelabel" and (strange := sorted(set(symbols.tolist()) - set(atomic_numbers))):
            raise BadInput(
                f"{where}: the type label '{strange[0]}' is no element; dump the column element, or type "
                f"and give --type-map; {REMEDY}"
            )
        if not np.array_equal(symbols, self._symbols):
            self._symbols = symbols  # else the same object, which needs no comparison later
        self._kinds = kinds

    def _velocities(self, column: dict[str, Floats], order: NDArray[np.intp] | slice) -> Floats | None:
        """Å/fs; without a line of units those of `metal` (Å/ps)."""
        if not set(VELOCITIES) <= set(column):
            return None
        values = np.stack([column[name] for name in VELOCITIES], axis=1)
        return values[order] / TIME_FS[self.units or "metal"]

    def _wanted(self, columns: list[str]) -> list[str]:
        """Masses and charges in the first frame; velocities in those that give a temperature."""
        self._number += 1
        names = [
            *(VELOCITIES if sampled(self._number) else ()),
            *(("mass", "q") if self._number == 1 else ()),
        ]
        return [name for name in names if name in columns]

    def _also(self, found: dict[str, Floats]) -> dict[str, Any]:
        """Fields of the frame, from columns in the order of the ids."""
        also = {field: found[name] for name, field in MORE.items() if name in found}
        if set(VELOCITIES) <= set(found):
            speeds = np.stack([found[name] for name in VELOCITIES]) / TIME_FS[self.units or "metal"]
            self._masses = also.get("masses", self._masses)
            own = len(self._masses) == len(self._symbols)
            masses = self._masses if own else atomic_masses[[atomic_numbers.get(s, 0) for s in self._symbols]]
            also["velocities"] = speeds.T
            kinetic = 0.5 * masses * ((speeds / ASE_TIME_PER_FS) ** 2).sum(axis=0)
            slow = self.units is None and kinetic.mean() < COLD_EV  # units real, which the file does not say
            also["kinetic"] = kinetic * FS_PER_PS**2 if slow else kinetic
        return also

    def _columns(self, columns: list[str]) -> tuple[list[str], Table]:
        if self._layout is not None and self._columns_seen == columns:
            return self._layout
        if "id" not in columns:
            raise BadInput(
                f"{self.path}: the dump has no 'id' column (found: {' '.join(columns)}) and LAMMPS writes "
                f"atoms in changing order; {REMEDY}"
            )
        # --type-map wins over the element column: LAMMPS writes 'C' where dump_modify element was forgotten
        self.use_map = bool(self.type_map) and "type" in columns
        kinds = ["type"] if self.use_map else [name for name in ("element", "typelabel") if name in columns]
        if not kinds:
            raise BadInput(
                f"{self.path}: no element of the atoms is known (columns: {' '.join(columns)}); give the "
                f"elements in the order of the LAMMPS types, e.g. --type-map Li P S Cl, or {REMEDY}"
            )
        axes = next((axes for axes in POSITIONS if set(axes) <= set(columns)), ())
        if not axes and not (self._with_velocities and set(VELOCITIES) <= set(columns)):
            raise BadInput(f"{self.path}: no positions among the columns {' '.join(columns)}; {REMEDY}")
        more = (*IMAGES, *VELOCITIES) if self._with_velocities else IMAGES
        wanted = [*axes, *(name for name in more if name in columns)]
        self._kind = kinds[0]
        numbers = [columns.index(name) for name in wanted]
        table = Table(len(columns), numbers, names=columns.index(self._kind), ids=columns.index("id"))
        self._columns_seen = columns
        self._layout = (wanted, table)
        return self._layout

    def _sort(self, ids: Floats, where: str) -> None:
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        if np.any(np.diff(ordered) == 0):
            raise BadInput(f"{where}: atom id {int(ordered[:-1][np.diff(ordered) == 0][0])} appears twice")
        if self._sorted_ids.size and not np.array_equal(ordered, self._sorted_ids):
            raise BadInput(
                f"{where}: {ordered.size} atoms whose ids differ from the {self._sorted_ids.size} of the "
                "first frame; expected the same atoms in all frames (atoms lost, or a dump group that "
                "changes)"
            )
        in_order = np.array_equal(order, np.arange(len(order)))
        self._ids, self._order, self._sorted_ids = ids, slice(None) if in_order else order, ordered

    def _from_types(self, types: NDArray[np.str_], where: str) -> NDArray[np.str_]:
        try:
            numbers = types.astype(int)
        except (ValueError, OverflowError) as error:
            raise BadInput(f"{where}: {error}; expected LAMMPS types as whole numbers") from error
        if numbers.max() > len(self.type_map) or numbers.min() < 1:
            raise BadInput(
                f"{where}: LAMMPS type {numbers.max()} but --type-map names {len(self.type_map)} elements "
                f"({' '.join(self.type_map)}); give one element per type"
            )
        return np.array(self.type_map)[numbers - 1]


def _box(header: _Header, where: str) -> tuple[Floats, Floats, tuple[bool, bool, bool]]:
    """Lattice vectors (rows), origin and periodic directions of an orthogonal, triclinic or general box."""
    words = header.bounds_line.split()
    flags = [word for word in words if len(word) == 2 and set(word) <= set("pfsm")]
    periodic = [flag == "pp" for flag in flags] if len(flags) == 3 else [True, True, True]
    rows = header.bounds
    shape = (periodic[0], periodic[1], periodic[2])
    widths = {len(row) for row in rows}
    if len(rows) != 3 or len(widths) != 1 or not widths <= {2, 3, 4}:
        raise BadInput(f"{where}: cannot read the box {rows}; expected 3 lines of 2, 3 or 4 numbers")
    bounds = np.array(rows)
    if not np.isfinite(bounds).all() or (widths != {4} and (bounds[:, 1] < bounds[:, 0]).any()):
        raise BadInput(f"{where}: the box {rows} is not one; expected finite numbers, the lower bound first")
    if widths == {4}:  # 'abc origin'
        return bounds[:, :3], bounds[:, 3], shape
    xy, xz, yz = bounds[:, 2] if widths == {3} else (0.0, 0.0, 0.0)
    low = bounds[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = bounds[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    lengths = high - low
    if (lengths < 0).any():
        raise BadInput(
            f"{where}: the box {rows} is narrower than its tilt; expected the bounds of the tilted box"
        )
    return np.array([[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]]), low, shape


def _positions(
    column: dict[str, Floats], cell: Floats, origin: Floats
) -> tuple[Floats, Floats | None, bool | None]:
    """Cartesian positions, the cell images to add if the dump holds them, and whether it is wrapped."""
    axes = next((axes for axes in POSITIONS if set(axes) <= set(column)), None)
    if axes is None:  # a dump of velocities
        return np.full((len(column["vx"]), 3), np.nan), None, None
    raw = np.stack([column[name] for name in axes], axis=1)
    cartesian = raw @ cell + origin if axes[0] in ("xs", "xsu") else raw
    if axes[0] in ("xu", "xsu"):
        return cartesian, None, False
    if set(IMAGES) <= set(column):
        return cartesian, np.stack([column[name] for name in IMAGES], axis=1), False
    return cartesian, None, True
