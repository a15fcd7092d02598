"""Series of the heat flux: a LAMMPS log, `fix ave/time`, CSV or numpy."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis import twice
from mlplugins.errors import BadInput, nearest

Floats = NDArray[np.float64]
OF_RUN = re.compile(
    r"\s*(?:(?:Unit style\s+:|units)\s+(?P<units>[a-z]+)|(?:Time step\s+:|timestep)\s+(?P<step>[\d.eE+-]+))"
    r"\s*(?:#.*)?$"
)
"""What LAMMPS prints on the screen at the start of every run, and the commands that its log repeats."""
LINES = 4096
TextTable = tuple[tuple[str, ...], list[Floats], dict[str, str]]
"""Head, rows in pieces (n, columns), and what LAMMPS said before it."""
SHORTEST = 200
"""Samples below which no spectrum can be told."""


@dataclass(frozen=True)
class Series:
    """One run.

    Attributes:
        path: the file.
        columns: names of all columns.
        table: (samples, columns).
        step: MD steps between samples; None: not in the file.
        fluxes: names of the columns that are J_x, J_y, J_z.
        units: of the run, as a LAMMPS log says; None: not in the file.
        time_step: of the run, in these units, likewise.
        chosen: which of several tables of a log this is, in words; "" for the only one.
        doubtful: another one is half as long or longer, or comes later.
    """

    path: Path
    columns: tuple[str, ...]
    table: Floats
    step: int | None
    fluxes: tuple[str, ...] = ()
    units: str | None = None
    time_step: float | None = None
    chosen: str = ""
    doubtful: bool = False

    def values(self, names: Sequence[str]) -> Floats:
        """Columns (samples, names).

        Raises:
            BadInput: no such column.
        """
        for name in names:
            if name not in self.columns:
                raise BadInput(f"{self.path}: no column '{name}': {nearest(name, self.columns)}")
        return self.table[:, [self.columns.index(name) for name in names]]

    def mean(self, name: str) -> float | None:
        """Mean of a column; None if there is none of this name."""
        return float(self.values([name]).mean()) if name in self.columns else None


def read(path: Path, columns: Sequence[str] = ()) -> Series:
    """A series and its three components of the flux.

    Args:
        path: `.npy` (samples, ≥ 3): the first three are J; `.csv` with a head; else the last table of a
            LAMMPS log that has the columns, or the output of `fix ave/time`.
        columns: names of J_x, J_y, J_z; none: the only columns `…[1]`, `…[2]`, `…[3]` of one vector.

    Raises:
        BadInput: unreadable, no such columns, several vectors, numbers that are not finite, steps at uneven
            intervals, fewer than 200 samples.
    """
    if not path.is_file():
        raise BadInput(f"no such file: '{path}'")
    series = _numpy(path) if path.suffix == ".npy" else _text(path)
    names = tuple(columns) or _vector(series)
    if len(names) != 3:
        raise BadInput(f"{path}: expected three columns of the flux, got {len(names)}: {', '.join(names)}")
    twice.require_other_names(path, names)
    flux = series.values(names)
    if not np.isfinite(flux).all():
        raise BadInput(f"{path}: sample {int(np.argmin(np.isfinite(flux).all(axis=1)))} is not finite")
    if len(flux) < SHORTEST:
        raise BadInput(f"{path}: {len(flux)} samples of the flux, expected at least {SHORTEST}: run longer")
    for name, column in zip(names, flux.T):
        if (np.diff(column) > 0).all():
            raise BadInput(
                f"{path}: '{name}' rises in every sample, as a time does: expected the components of a flux "
                "(name them with --columns)"
            )
    twice.require_other_columns(path, names, flux)
    if series.step is None:
        twice.in_one_piece(path, flux)
    return replace(series, fluxes=names)


def _vector(series: Series) -> tuple[str, ...]:
    """The columns of the only vector of three or more components."""
    found: dict[str, list[str]] = {}
    for name in series.columns:
        if match := re.fullmatch(r"(.+)\[(\d+)\]", name):
            found.setdefault(match[1], []).append(name)
    vectors = {stem: names[:3] for stem, names in found.items() if len(names) in (3, 6)}
    if len(vectors) != 1:
        got = ", ".join(vectors) if vectors else f"columns {', '.join(series.columns)}"
        raise BadInput(
            f"{series.path}: expected one vector of 3 or 6 components (c_J[1] c_J[2] c_J[3]), got {got}: "
            "name the three columns with --columns"
        )
    return tuple(next(iter(vectors.values())))


def _numpy(path: Path) -> Series:
    try:
        loaded = np.load(path, allow_pickle=False)
        table = np.asarray(loaded, dtype=np.float64) if np.isrealobj(loaded) else np.empty(0)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{path}: not an array of numpy ({error})") from error
    if table.ndim != 2 or table.shape[1] < 3:
        kind = f"{loaded.dtype} {loaded.shape}"
        raise BadInput(f"{path}: expected an array of real numbers (samples, 3 or more), got {kind}")
    if len(table) < SHORTEST <= table.shape[1]:
        raise BadInput(f"{path}: expected an array (samples, 3 or more), got {table.shape}: transpose it")
    names = tuple(f"J[{k}]" for k in range(1, min(table.shape[1], 6) + 1))
    more = tuple(f"column{k}" for k in range(len(names) + 1, table.shape[1] + 1))
    names = (
        names if len(names) in (3, 6) else names[:3] + tuple(f"column{k}" for k in range(4, len(names) + 1))
    )
    return Series(path, names + more, table, None)


def _text(path: Path) -> Series:
    """Tables: a head of names, then rows of as many numbers; of a log the longest one with a vector."""
    tables = _tables(path)
    if not tables:
        raise BadInput(
            f"{path}: no table: expected a LAMMPS log with c_J[1] … in its thermo output, the output of fix "
            "ave/time, CSV with a head of names, or .npy"
        )
    sizes = [sum(map(len, rows)) for _, rows, _ in tables]
    place = int(np.argmax(sizes))
    columns, rows, of_run = tables[place]
    table = np.concatenate(rows)
    same = [k for k, (head, _, _) in enumerate(tables) if head == columns]
    lengths = sorted(sizes[k] for k in same)
    number = same.index(place) + 1
    chosen = f"the longest of {len(same)} tables, number {number}: {len(table)} of {sum(lengths)} rows"
    step = of_run.get("step")
    return Series(
        path,
        columns,
        table,
        _interval(path, columns, table),
        units=of_run.get("units"),
        time_step=None if step is None else float(step),
        chosen=chosen if len(same) > 1 else "",
        doubtful=len(same) > 1 and (place != same[-1] or 2 * lengths[-2] >= lengths[-1]),
    )


def _tables(path: Path) -> list[TextTable]:
    """All tables of a text, some thousand lines at a time: those in the midst of a table go the fast way."""
    tables: list[TextTable] = []
    said: dict[str, str] = {}
    head: tuple[str, ...] = ()
    words_before: tuple[str, ...] = ()  # a head if a row of as many numbers follows
    with open(path, encoding="utf-8", errors="replace") as text:
        while lines := list(itertools.islice(text, LINES)):
            if head and not words_before and (rows := _rows(lines, len(head))) is not None:
                tables[-1][1].append(rows)
                continue
            for line in lines:
                if line.startswith("WARNING") or line.isspace():  # LAMMPS', between rows
                    continue
                if match := OF_RUN.match(line):
                    said |= {name: word for name, word in match.groupdict().items() if word}
                words = line.replace(",", " ").lstrip("# ").split()
                try:
                    row = [float(word) for word in words]
                except ValueError:
                    words_before = tuple(words)
                    continue
                if len(row) == len(words_before):
                    head, words_before = words_before, ()
                if len(row) != len(head):
                    continue
                if not tables or tables[-1][0] is not head:
                    tables.append((head, [], dict(said)))
                tables[-1][1].append(np.array([row]))
    return tables


def _rows(lines: Sequence[str], width: int) -> Floats | None:
    """Lines that all are rows of so many numbers; None if any is not."""
    if lines[0].isspace():  # perhaps all of them
        return None
    try:
        found = np.loadtxt((line.replace(",", " ") for line in lines), ndmin=2, comments=None)
    except ValueError:
        return None
    return found if found.shape == (len(lines), width) else None


def _interval(path: Path, columns: Sequence[str], table: Floats) -> int | None:
    """MD steps between samples, which must be even."""
    name = next((each for each in columns if each in ("Step", "TimeStep", "step")), None)
    if name is None or len(table) < 2:
        return None
    steps = np.diff(table[:, list(columns).index(name)])
    if steps[0] <= 0 or (steps != steps[0]).any():
        bad = int(np.argmax(steps != steps[0]))
        raise BadInput(
            f"{path}: samples {bad} and {bad + 1} are {steps[bad]:g} steps apart, the first two "
            f"{steps[0]:g}: expected one interval"
        )
    return int(steps[0])
