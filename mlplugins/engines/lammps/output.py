"""Reading LAMMPS' output: thermo tables of a log, dumps, and whether a restart file is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.dynamics.output import integer, skip

Array = NDArray[np.float64]

_RESTART_MAGIC = b"LammpS RestartT"  # written again as the last item of a complete file


def read_log(path: Path | str) -> list[dict[str, Array]]:
    """Thermo tables of a LAMMPS log, one dictionary of columns per `run` or `minimize`.

    A last row that was cut is dropped.
    """
    tables: list[dict[str, Array]] = []
    names: list[str] = []
    rows: list[list[float]] = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words and words[0] == "Step":
            names, rows = words, []
            tables.append({})
        elif names and words and len(words) == len(names) and _is_number(words[0]):
            rows.append([float(word) for word in words])
            tables[-1] = dict(zip(names, np.array(rows).T))
        elif line.startswith("Loop time"):
            names = []
    return [table for table in tables if table]


def read_dump(path: Path | str) -> Array:
    """Rows of the last frame of a `dump custom` file, (atoms, columns), sorted by the first column."""
    return last_frame(Path(path).read_text(encoding="utf-8"))


def last_frame(text: str) -> Array:
    """`read_dump` of the text of such a file."""
    start = text.rindex("ITEM: ATOMS")
    lines = text[start:].splitlines()
    width = len(lines[0].split()) - 2
    rows = np.array([[float(word) for word in line.split()] for line in lines[1:]]).reshape(-1, width)
    return rows[np.argsort(rows[:, 0], kind="stable")]


def whole_frames(path: Path) -> Iterator[tuple[int, int]]:
    """(step, end in bytes) of every whole frame of a LAMMPS text dump."""
    with path.open("rb") as stream:
        step, atoms = -1, -1
        while line := stream.readline():
            if line.startswith(b"ITEM: TIMESTEP"):
                step = integer(stream.readline())
            elif line.startswith(b"ITEM: NUMBER OF ATOMS"):
                atoms = integer(stream.readline())
            elif line.startswith(b"ITEM: ATOMS"):
                if step < 0 or atoms < 0 or not skip(stream, atoms):
                    return
                yield step, stream.tell()
                step, atoms = -1, -1


def restart_is_readable(path: Path | str) -> bool:
    """Whether a binary restart file is complete (a run killed while writing leaves a truncated one)."""
    with open(path, "rb") as stream:
        head = stream.read(len(_RESTART_MAGIC))
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 2 * len(_RESTART_MAGIC)))
        return head == _RESTART_MAGIC and _RESTART_MAGIC in stream.read()


def _is_number(word: str) -> bool:
    return word.lstrip("-").isdigit()
