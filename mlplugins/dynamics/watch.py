"""Runs that watch their own uncertainty: what is watched, the table and the frames left, and their end.

Every host writes the table `uncertainty.dat` (step, largest value, its atom counted from 1, mean over the
atoms; steps of all stages, equilibration first) and the frames above `keep_above`. A run that met a value
above `stop_above` has ended at that row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.dynamics.output import cut_frames, cut_table, last_lines
from mlplugins.errors import RunStopped

TABLE, KEPT = "uncertainty.dat", "kept.extxyz"
COLUMNS = "step largest atom mean"
FORCE_UNIT, ENERGY_UNIT = "eV/Å", "eV"


@dataclass(frozen=True)
class Measure:
    """What a model says of its uncertainty on every atom.

    Attributes:
        key: field of LAMMPS' `fix pair`: `deviation`, `force_uncertainty` or `uncertainty`.
        words: what it is.
        unit: of its values and of the thresholds.
    """

    key: str
    words: str
    unit: str


DEVIATION = Measure("deviation", "model deviation of forces", FORCE_UNIT)
FORCE = Measure("force_uncertainty", "predicted uncertainty of forces", FORCE_UNIT)
ENERGY = Measure("uncertainty", "predicted uncertainty of atomic energies", ENERGY_UNIT)
MEASURES = {measure.key: measure for measure in (DEVIATION, FORCE, ENERGY)}


@dataclass(frozen=True)
class Watch:
    """How a run watches itself.

    Attributes:
        measure: of the model.
        every: steps between looks.
        stop_above: a larger value ends the run; None: none does.
        keep_above: frames with a larger value are written to a file of their own; None: the last one of a
            run that is ended. One of the two is given.
        probes: of `FORCE`; 0: exactly.
    """

    measure: Measure
    every: int
    stop_above: float | None
    keep_above: float | None
    probes: int

    @property
    def title(self) -> str:
        """First line of the table."""
        unit = self.measure.unit.replace("Å", "A")  # LAMMPS writes it, too
        limits = {"keep_above": self.keep_above, "stop_above": self.stop_above}
        said = ", ".join(f"{name} {value:g}" for name, value in limits.items() if value is not None)
        return f"# {self.measure.words}, {unit}; {said}; atoms from 1"

    @property
    def kept_above(self) -> float:
        """Frames with a larger value are written: those above `keep_above`, or the one that ends the run."""
        limits = (self.keep_above, self.stop_above)
        return min(limit for limit in limits if limit is not None)


@dataclass(frozen=True)
class Look:
    """The step, the largest value, its atom (from 1), the mean over all atoms."""

    step: int
    largest: float
    atom: int
    mean: float


def read_rows(path: Path) -> list[Look]:
    """The rows of a table; a last one that was cut short is left out; none without a file."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [row for line in text[: text.rfind("\n") + 1].splitlines() if (row := _row(line)) is not None]


def _row(line: str) -> Look | None:
    words = line.split()
    if len(words) != 4 or line.startswith("#"):
        return None
    try:
        step, largest, atom, mean = map(float, words)
    except ValueError:
        return None
    return Look(int(step), largest, int(atom), mean)


def stopped_at(directory: Path, watch: Watch | None) -> Look | None:
    """The row at which the run in this folder was stopped; None if it was not."""
    if watch is None or watch.stop_above is None:
        return None
    lines = last_lines(directory / TABLE, 1)
    row = _row(lines[0]) if lines else None
    return row if row is not None and not row.largest <= watch.stop_above else None


def cut(directory: Path, before: int) -> None:
    """Remove rows and frames of step `before` and later: the run continues there."""
    cut_table(directory / TABLE, before)
    cut_frames(directory / KEPT, _frames, before)


def _frames(path: Path) -> Iterator[tuple[int, int]]:
    """(step, end in bytes) of every whole frame of an extended XYZ file with `step` in its comment."""
    with path.open("rb") as stream:
        while (head := stream.readline()).strip().isdigit():
            comment = stream.readline()
            found = re.search(rb"\bstep=(\d+)", comment)
            rows = [stream.readline() for _ in range(int(head))]
            if found is None or not all(row.endswith(b"\n") for row in rows):
                return
            yield int(found[1]), stream.tell()


class Recorder:
    """Writes the table and the frames of a run, in the hosts that are Python.

    Args:
        watch: how.
        directory: of the run.
    """

    def __init__(self, watch: Watch, directory: Path) -> None:
        self._watch = watch
        self._directory = directory

    def look(self, step: int, values: NDArray[Any], atoms: Callable[[], Atoms]) -> None:
        """Record one step: a row, and the frame if a value is above `keep_above`.

        Args:
            step: of all stages.
            values: (N,), in the unit of the measure.
            atoms: gives the structure.

        Raises:
            RunStopped: a value is above `stop_above`, or none; its row and its frame are written.
        """
        watch, worst = self._watch, int(np.argmax(values))
        row = Look(step, float(values[worst]), worst + 1, float(np.mean(values)))
        stop = watch.stop_above is not None and not row.largest <= watch.stop_above
        if not row.largest <= watch.kept_above:
            self._keep(row, values, atoms())
        path = self._directory / TABLE
        new = not path.is_file() or not path.stat().st_size
        with path.open("a", encoding="utf-8") as table:
            if new:
                table.write(f"{watch.title}\n# {COLUMNS}\n")
            table.write(f"{row.step} {row.largest:.8g} {row.atom} {row.mean:.8g}\n")
        if stop:
            raise RunStopped(describe(row, watch, self._symbol(row, atoms())))

    @staticmethod
    def _symbol(row: Look, atoms: Atoms) -> str:
        return str(atoms.get_chemical_symbols()[row.atom - 1])

    def _keep(self, row: Look, values: NDArray[Any], atoms: Atoms) -> None:
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frame.info = {"step": row.step, "largest": row.largest, "atom": row.atom}
        frame.new_array(self._watch.measure.key, np.asarray(values, dtype=float))
        ase.io.write(self._directory / KEPT, frame, format="extxyz", append=True)


def describe(row: Look, watch: Watch, symbol: str) -> str:
    """Why a run was stopped, in a sentence.

    >>> describe(Look(120, 0.61, 7, 0.2), Watch(DEVIATION, 10, 0.5, None, 8), "Li")
    'at step 120 the model deviation of forces of atom 7 (Li) is 0.61 eV/Å, above stop_above 0.5'
    """
    of_element = f" ({symbol})" if symbol else ""
    return (
        f"at step {row.step} the {watch.measure.words} of atom {row.atom}{of_element} is {row.largest:.3g} "
        f"{watch.measure.unit}, above stop_above {watch.stop_above:g}"
    )
