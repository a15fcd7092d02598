"""Velocities, dipoles or polarizabilities of the frames of trajectories, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from ase.io import iread
from ase.io.formats import UnknownFileTypeError

from mlplugins.analysis.readers import lammps_dump, xyz
from mlplugins.analysis.readers._text import Floats, Frame, Lines, ReadOptions, Table, head, whole_frames
from mlplugins.errors import BadInput
from mlplugins.structures import comments, foreign, state
from mlplugins.units import A_FS_PER_ATOMIC_VELOCITY, ASE_TIME_PER_FS, FS_PER_PS

AT_ONCE = 1 << 19
"""Numbers in a piece."""
IPI_VELOCITIES = ("velocities", "v_centroid")
IPI_UNITS = {
    "atomic_unit": A_FS_PER_ATOMIC_VELOCITY,
    "": A_FS_PER_ATOMIC_VELOCITY,
    "m/s": 1e-5,
    "ase": ASE_TIME_PER_FS,
}
"""Å/fs in the units of velocity that i-PI knows."""
XYZ = (".xyz", ".extxyz")
ISOTOPES = {"D": 2.014101778, "T": 3.016049281}
"""Masses of what i-PI may call atoms of hydrogen, u."""


class Snapshot(NamedTuple):
    """What is taken of one frame: symbols (N,), its numbers (C,), MD step, cell (3, 3) if it is periodic,
    total charge, time (fs) if the file says it."""

    symbols: tuple[str, ...]
    values: Floats
    step: int | None
    cell: Floats | None
    charge: float
    time_fs: float | None = None


@dataclass
class FrameSeries:
    """A trajectory.

    Attributes:
        path: the file.
        wanted: `velocities`, else the name of an ASE property or of an entry of `info`.
        type_map: elements of LAMMPS' types.
        warnings: what was dropped is appended here.
        unit: of the values by the kind of file: Å/fs of velocities, e·Å of ASE's own files; None: not known.
        symbols, columns: of the first frame: elements, and how many numbers are taken.
        volume, charge: of the first frame: Å³ (0 where it is not periodic in all directions), e.
        masses: (N,), u.
        stated: the file says the unit of its velocities.
    """

    path: Path
    wanted: str
    type_map: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._masses: Floats | None = None
        start = head(self.path)
        self._dump = lammps_dump.matches(self.path, start)
        self._ipi = not self._dump and _is_ipi(self.path, start)
        self.stated = True
        first = next(self.samples(), None)
        if first is None:
            raise BadInput(f"{self.path}: no frame; expected a trajectory with {self.wanted}")
        self.masses = self._masses if self._masses is not None else masses(first.symbols, str(self.path))
        self.symbols, self.columns, self.charge = first.symbols, len(first.values), first.charge
        self.volume = 0.0 if first.cell is None else abs(float(np.linalg.det(first.cell)))
        velocities = self.wanted == "velocities"
        self.stated = velocities and not (self._dump and b"ITEM: UNITS" not in start)
        ase = self.wanted == "dipole" and self.path.suffix not in XYZ
        self.unit = ("A/fs" if self.stated else "A/ps") if velocities else "e*A" if ase else None

    def samples(self) -> Iterator[Snapshot]:
        """Of every frame.

        Raises:
            BadInput: what is wanted is not in a frame.
        """
        if self._dump or self._ipi:
            if self.wanted != "velocities":
                raise BadInput(f"{self.path}: a trajectory of atoms, which holds no {self.wanted}")
            yield from map(self._of_frame, self._frames())
            return
        try:
            for number, atoms in enumerate(iread(str(self.path), index=":")):
                yield self._of_atoms(atoms, number)
        except BadInput:
            raise
        except UnknownFileTypeError as error:
            raise BadInput(
                f"{self.path}: neither a trajectory nor a table that is known; a table has a line of names "
                "above its columns, one for each, with blanks or commas between them"
            ) from error
        except Exception as error:  # ASE's parsers of damaged files raise anything
            raise BadInput(f"{self.path}: ASE cannot read it ({type(error).__name__}: {error})") from error

    def pieces(self) -> Iterator[list[Snapshot]]:
        """FrameSeries of the same atoms, many at a time.

        Raises:
            BadInput: atoms that change.
        """
        samples = self.samples()
        while piece := list(islice(samples, max(1, AT_ONCE // self.columns))):
            for each in piece:
                if each.symbols is not self.symbols and each.symbols != self.symbols:
                    raise BadInput(
                        f"{self.path}: frames of {_formula(self.symbols)} and {_formula(each.symbols)}; "
                        "expected one system"
                    )
                if len(each.values) != self.columns:
                    raise BadInput(f"{self.path}: frames with {self.columns} and {len(each.values)} numbers")
            yield piece

    def _frames(self) -> Iterator[Frame]:
        options = ReadOptions(type_map=self.type_map, velocities=True, warnings=self.warnings)
        if self._dump:
            return lammps_dump.read(self.path, options)
        return whole_frames(self.path, options, _Velocities(self.path).frame)

    def _of_frame(self, frame: Frame) -> Snapshot:
        if frame.velocities is None:
            raise BadInput(f"{self.path}: no velocities; expected the columns vx vy vz")
        if not hasattr(self, "_known") or self._known[0] is not frame.symbols:
            self._known: tuple[Any, tuple[str, ...]] = (frame.symbols, tuple(map(str, frame.symbols)))
        if self._masses is None and frame.masses is not None:
            self._masses = frame.masses
        cell = frame.cell if all(frame.periodic) and np.any(frame.cell) else None
        velocities = frame.velocities.ravel()
        if self._dump and not self.stated:  # the reader took them for Å/ps
            velocities = velocities * FS_PER_PS
        return Snapshot(self._known[1], velocities, frame.step, cell, 0.0, frame.time_fs)

    def _of_atoms(self, atoms: Atoms, number: int) -> Snapshot:
        results = {} if atoms.calc is None else atoms.calc.results
        foreign.take_masses(atoms)
        if self.wanted == "velocities":
            if not atoms.has("momenta"):
                raise BadInput(
                    f"{self.path}, frame {number}: no velocities; expected momenta, as ASE writes them"
                )
            values = atoms.get_velocities() * ASE_TIME_PER_FS
        else:
            values = results.get(self.wanted, atoms.info.get(self.wanted))
            if values is None:
                there = ", ".join(sorted({*results, *atoms.info})) or "nothing"
                raise BadInput(
                    f"{self.path}, frame {number}: no '{self.wanted}' (there is {there}): name it with "
                    "--columns"
                )
        values = np.asarray(values, dtype=np.float64).ravel()
        if not np.isfinite(values).all():
            raise BadInput(f"{self.path}, frame {number}: {self.wanted} that are not finite")
        if self._masses is None:
            self._masses = np.array(atoms.get_masses())
        step = atoms.info.get("step")
        cell = np.array(atoms.cell.array) if atoms.pbc.all() else None
        charge = state.of(atoms.info).charge
        symbols = tuple(atoms.get_chemical_symbols())
        return Snapshot(symbols, values, None if step is None else int(step), cell, charge)


def masses(symbols: Sequence[str], where: str) -> Floats:
    """Of elements and isotopes, u.

    >>> masses(["O", "D"], "here").tolist()
    [15.999, 2.014101778]

    Raises:
        BadInput: no element.
    """
    for symbol in symbols:
        if symbol not in ISOTOPES and symbol not in atomic_numbers:
            raise BadInput(f"{where}: '{symbol}' is no element, so its mass is not known")
    known = [ISOTOPES.get(symbol) or float(atomic_masses[atomic_numbers[symbol]]) for symbol in symbols]
    return np.array(known)


def _formula(symbols: tuple[str, ...]) -> str:
    return str(Atoms(symbols).get_chemical_formula())


def _is_ipi(path: Path, start: bytes) -> bool:
    if not xyz.matches(path, start):
        return False
    comment = start.decode("utf-8", "replace").splitlines()[1]
    return comments.ipi_cell(comment, str(path)) is not None and "ipi_comment" not in comment


class _Velocities:
    """i-PI's xyz files of velocities."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self._table = Table(4, (1, 2, 3), 0)

    def frame(self, lines: Lines) -> Frame | None:
        line = lines.between_frames().strip()
        if not line:
            return None
        self.number += 1
        where = f"{self.path}, frame {self.number}"
        text = lines.take(1, f"ends inside frame {self.number}").decode("utf-8", "replace")
        cell = comments.ipi_cell(text, where)
        if not line.isdigit() or cell is None:
            raise BadInput(f"{where}: expected i-PI's trajectory of velocities, found '{text[:60]}'")
        units = comments.ipi_units(cell.rest)
        units.pop("cell", None)
        name, unit = next(iter(units.items()), ("", ""))
        if name not in IPI_VELOCITIES or unit not in IPI_UNITS:
            raise BadInput(
                f"{where}: holds '{name}{{{unit}}}'; expected {' or '.join(IPI_VELOCITIES)} in one of "
                f"{', '.join(filter(None, IPI_UNITS))}"
            )
        count = int(line)
        found = self._table.parse(lines.take(count, f"ends inside frame {self.number}"), count, where)
        step = text.partition("Step:")[2].split()
        return Frame(
            symbols=found.names,
            positions=found.values.T,
            cell=np.zeros((3, 3)),
            step=int(step[0]) if step and step[0].isdigit() else None,
            velocities=found.values.T * IPI_UNITS[unit],
        )
