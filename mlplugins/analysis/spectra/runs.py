"""One run: its files (beads of a path integral), their clock, and pieces of the series in units of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlplugins.analysis.readers._text import Floats
from mlplugins.analysis.spectra.frames import FrameSeries, masses
from mlplugins.analysis.spectra.kinds import SpectrumKind
from mlplugins.analysis.spectra.series import NumberFile, Steps, open_table, picked
from mlplugins.errors import BadInput, nearest

TIME = re.compile(r"([Tt]ime|t)\b(?!\[)|[Tt]ime_")
"""Columns of times (T is a temperature)."""
JUMP = 10.0
"""A step of a dipole that is so many times the median one is a jump, not dynamics."""
FEW = 32
"""Steps of which a median can be taken."""
NEAR = 0.25
"""Part of a cell vector by which two samples may differ where jumps by cell vectors are taken back."""


class Piece(NamedTuple):
    """A stretch of a run: values (n, C), MD steps (n,) and cells (n, 3, 3), if known."""

    values: Floats
    steps: Steps | None
    cells: Floats | None

    def after(self, n: int) -> Piece:
        """Without its first n samples."""
        steps = None if self.steps is None else self.steps[n:]
        return Piece(self.values[n:], steps, None if self.cells is None else self.cells[n:])


@dataclass
class SeriesFile:
    """One file.

    Attributes:
        path: the file.
        content: what is read of it.
        columns: taken of a table.
        unit: of its values, and how it is known.
        factor: of the values, to our unit.
        symbols, masses: of the atoms, where it has atoms.
    """

    path: Path
    content: NumberFile | FrameSeries
    columns: list[int]
    unit: str
    unit_from: str
    factor: float
    symbols: tuple[str, ...] = ()
    masses: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def width(self) -> int:
        """Number of values."""
        return len(self.columns) if isinstance(self.content, NumberFile) else self.content.columns

    def first_steps(self) -> Steps | None:
        """MD steps of its first samples, if it has them."""
        if isinstance(self.content, NumberFile):
            return next((chunk.steps for chunk in self.content.chunks()), None)
        steps = [each.step for each in islice(self.content.samples(), 2) if each.step is not None]
        return np.array(steps, dtype=np.int64)

    def stated_interval(self) -> float | None:
        """Between its first samples, fs, if the file says times."""
        if isinstance(self.content, NumberFile):
            return None
        times = [each.time_fs for each in islice(self.content.samples(), 2) if each.time_fs is not None]
        return times[1] - times[0] if len(times) == 2 else None

    def clock(self) -> float | None:
        """Between the first two rows of a table with a column of times, whose unit it does not say."""
        if not isinstance(self.content, NumberFile):
            return None
        column = next((k for k, name in enumerate(self.content.columns) if TIME.match(name)), None)
        first = next(self.content.chunks(), None)
        if column is None or first is None or len(first.values) < 2:
            return None
        return float(first.values[1, column] - first.values[0, column])

    def pieces(self) -> Iterator[Piece]:
        """All of it."""
        if isinstance(self.content, NumberFile):
            for chunk in self.content.chunks():
                yield Piece(self.factor * chunk.values[:, self.columns], chunk.steps, None)
            return
        for samples in self.content.pieces():
            values = self.factor * np.stack([each.values for each in samples])
            steps = [each.step for each in samples if each.step is not None]
            cells = [each.cell for each in samples if each.cell is not None]
            yield Piece(
                values,
                np.array(steps, dtype=np.int64) if len(steps) == len(samples) else None,
                np.stack(cells) if len(cells) == len(samples) else None,
            )


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        unit: of the values; None: as the kind of file says.
        columns: names of columns, or of the property of frames.
        species: elements of arrays of velocities, or of LAMMPS' types.
        cell: (3, 3) of dipoles whose jumps by cell vectors are taken back, Å; None: that of the frames.
        keep_jumps: dipoles may jump.
    """

    unit: str | None = None
    columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ()
    cell: Floats | None = None
    keep_jumps: bool = False


def open_source(path: Path, kind: SpectrumKind, reading: Reading) -> SeriesFile:
    """The file of one bead.

    Raises:
        BadInput: unreadable, or a unit that neither it nor the settings say.
    """
    table = open_table(path)
    columns: list[int] = []
    content: NumberFile | FrameSeries
    symbols: tuple[str, ...] = ()
    mass = np.zeros(0)
    if table is not None:
        content = table
        counts = (3 * len(reading.species),) if kind.name == "vdos" else kind.counts
        columns = picked(table, reading.columns, counts, kind.what)
        if kind.name == "vdos":
            symbols, mass = reading.species, masses(reading.species, str(path))
    else:
        if kind.name == "power":
            raise BadInput(
                f"{path}: not a table of numbers: power spectra are of columns; for atoms take vdos"
            )
        wanted = reading.columns[0] if reading.columns else kind.what
        content = FrameSeries(path, wanted, reading.species)
        symbols, mass = content.symbols, content.masses
        if kind.name == "ir" and content.charge:
            raise BadInput(
                f"{path}: the charge is {content.charge:g} e: the dipole of a charged system moves with its "
                "origin; write it about the centre of mass, without `charge`"
            )
        if kind.counts and content.columns not in kind.counts:
            many = " or ".join(map(str, kind.counts))
            raise BadInput(f"{path}: {wanted} of {content.columns} numbers, expected {many}")
    unit, where, factor = _unit(path, kind, reading.unit, content)
    return SeriesFile(path, content, columns, unit, where, factor, symbols, mass)


def _unit(
    path: Path, kind: SpectrumKind, given: str | None, content: NumberFile | FrameSeries
) -> tuple[str, str, float]:
    """Name, how it is known, factor."""
    if not kind.units:
        return given or "", "as given" if given else "not said", 1.0
    if given and isinstance(content, FrameSeries) and content.stated:
        raise BadInput(
            f"{path}: its {kind.what} are in units that it states, not in {given}: leave out --unit"
        )
    unit = given or content.unit
    if unit is None:
        raise BadInput(
            f"{path}: the unit of the {kind.what} is not in the file and never guessed: --unit with one of "
            f"{', '.join(kind.units)}"
        )
    if unit == "e*A" and kind.name == "raman" and given is None:  # LAMMPS
        unit = "A^3"
    if unit not in kind.units:
        raise BadInput(f"unit of the {kind.what}: '{unit}': {nearest(unit, kind.units)}")
    said = {
        "extras": "what i-PI's drivers are to send; --unit, if another driver sent them",
        "ave/time": "LAMMPS in units metal or real; --unit, if other",
    }
    said["dump"] = "LAMMPS in units metal; --unit A/fs, if real"
    kind_of_file = content.kind if isinstance(content, NumberFile) else "dump" * (unit == "A/ps")
    return unit, "as given" if given else said.get(kind_of_file, "of this format"), kind.units[unit]


class Clock:
    """Checks that samples are evenly spaced.

    Args:
        path: named in messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stride: int | None = None
        self._last: int | None = None
        self._seen = 0

    def add(self, steps: Steps | None) -> None:
        """The next samples.

        Raises:
            BadInput: a gap, a step twice, another stride.
        """
        if steps is None or not len(steps):
            return
        known = steps if self._last is None else np.concatenate([[self._last], steps])
        strides = np.diff(known)
        if len(strides) and self.stride is None:
            self.stride = int(strides[0])
        if len(strides) and (strides != self.stride).any():
            bad = int(np.argmax(strides != self.stride))
            between = f"after step {known[bad]} comes step {known[bad + 1]}"
            if strides[bad] <= 0:
                remedy = "frames are there twice (a restart that was appended?): remove the first ones"
            else:
                remedy = "a gap, or another interval: give the parts as runs of their own"
            raise BadInput(f"{self.path}: {between}, expected one every {self.stride}: {remedy}")
        if self.stride is not None and self.stride <= 0:
            raise BadInput(
                f"{self.path}: steps that do not grow ({known[0]}, {known[1]}): damaged, or appended"
            )
        self._last = int(steps[-1])
        self._seen += len(steps)


class Dipoles:
    """Takes back jumps by cell vectors, and finds the jumps that are none.

    Args:
        path: named in messages.
        reading: with the cell, if given.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        self._cell, self._keep = reading.cell, reading.keep_jumps
        self._last: Floats | None = None
        self._shift = np.zeros(3)
        self._seen = 0
        self.unwrapped = 0
        self.doubtful = 0

    def follow(self, values: Floats, cells: Floats | None) -> Floats:
        """The values without jumps.

        Raises:
            BadInput: jumps that are no cell vectors, or of which no cell is known.
        """
        known = values if self._last is None else np.concatenate([self._last, values])
        self._last = values[-1:].copy()
        steps = np.diff(known, axis=0)
        cell = self._cell if self._cell is not None else cells
        if cell is not None and len(steps):
            cell = cell[len(cell) - len(steps) :] if cell.ndim == 3 else np.tile(cell, (len(steps), 1, 1))
            parts = np.linalg.solve(np.swapaxes(cell, 1, 2), steps[..., None])[..., 0]
            whole = np.rint(parts)
            back = -np.einsum("ni,nij->nj", whole, cell)
            self.unwrapped += int(whole.any(axis=1).sum())
            self.doubtful += int((np.abs(parts - whole) > NEAR).any(axis=1).sum())
            steps = steps + back
            shifts = self._shift + np.cumsum(back, axis=0)
            shifts = shifts if len(shifts) == len(values) else np.concatenate([self._shift[None], shifts])
            self._shift = shifts[-1].copy()
            values = values + shifts
        self._refuse(steps)
        self._seen += len(values)
        return values

    def _refuse(self, steps: Floats) -> None:
        sizes = np.linalg.norm(steps, axis=1)
        if self._keep or len(sizes) < FEW:
            return
        median = float(np.median(sizes))
        jumps = np.flatnonzero(sizes > JUMP * max(median, 1e-12))
        if not len(jumps):
            return
        place = self._seen + int(jumps[0])
        remedy = (
            "not by a cell vector: is the cell right, is one sample damaged?"
            if self._cell is not None
            else "another branch of the polarisation, atoms that were wrapped? --cell LX LY LZ takes jumps "
            "by cell vectors "
            "back"
        )
        raise BadInput(
            f"{self.path}: the dipole jumps by {sizes[jumps[0]]:.3g} e·Å near sample {place}, its usual "
            f"step is {median:.2g} ({len(jumps)} such jumps): {remedy}; --keep-jumps analyses them as "
            "they are"
        )


def together(sources: Sequence[SeriesFile], warnings: list[str]) -> Iterator[Piece]:
    """The mean over the beads, of as many samples as all of them have.

    Raises:
        BadInput: beads of different steps.
    """
    streams = [source.pieces() for source in sources]
    held: list[Piece | None] = [None] * len(sources)
    while True:
        for k, stream in enumerate(streams):
            while (part := held[k]) is None or not len(part.values):
                held[k] = next(stream, None)
                if held[k] is None:
                    if any(part is not None and len(part.values) for part in held) or any(
                        next(other, None) is not None for other in streams[k + 1 :]
                    ):
                        warnings.append(
                            f"{sources[k].path} is shorter than other beads: the rest was left out"
                        )
                    return
        parts = [part for part in held if part is not None]
        n = min(len(part.values) for part in parts)
        first = parts[0].steps
        for source, part in zip(sources, parts):
            if first is not None and part.steps is not None and (part.steps[:n] != first[:n]).any():
                raise BadInput(f"{source.path} and {sources[0].path}: beads of different steps")
        mean = np.mean([part.values[:n] for part in parts], axis=0)
        cells = parts[0].cells
        yield Piece(mean, None if first is None else first[:n], None if cells is None else cells[:n])
        held = [part.after(n) for part in parts]
