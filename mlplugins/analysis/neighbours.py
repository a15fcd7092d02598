"""Time steps that inputs and logs of the run say, in files beside the trajectory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mlplugins.units import ATOMIC_TIME_S, FS_PER_PS

MOST_FILES, MOST_BYTES = 20, 20_000_000
"""Inputs and logs of a folder that are looked at, and of each."""
SAME = 1e-6
LAMMPS_FS = {"metal": FS_PER_PS, "real": 1.0}
UNSAID = {"metal": 0.001, "real": 1.0}
"""The time steps of LAMMPS where a deck sets none."""
IPI_FS = {"femtosecond": 1.0, "picosecond": FS_PER_PS, "second": 1e15, "atomic_unit": ATOMIC_TIME_S * 1e15}
DUMPED = re.compile(r"^dump\s+\S+\s+\S+\s+\S+\s+\S+\s+(\S+)", re.MULTILINE)
STYLE = re.compile(r"^\s*(?:units\s+|Unit style\s*: )(\w+)", re.MULTILINE)
STEP = re.compile(r"^\s*(?:timestep\s+|Time step\s*: )([\d.eE+-]+)\s*(?:#.*)?$", re.MULTILINE)
"""As LAMMPS repeats commands in a log (variables replaced), and as it says on the screen."""
PREFIX = re.compile(r"<output\b[^>]*\bprefix\s*=\s*['\"]([^'\"]+)['\"]")
IPI_STEP = re.compile(r"<timestep(?:\s+units\s*=\s*['\"](\w+)['\"])?\s*>\s*([\d.eE+-]+)\s*</timestep>")
POTIM = re.compile(r"^[^#!\n]*\bPOTIM\s*=\s*([\d.eE+-]+)", re.MULTILINE)
VASP_MD = re.compile(r"^[^#!\n]*\bIBRION\s*=\s*0\b", re.MULTILINE)

FREE_CELL = re.compile(r"^[^#!\n]*\bISIF\s*=\s*[3-8]\b", re.MULTILINE)


class Said(NamedTuple):
    """A time step, fs, and the file that says it."""

    timestep_fs: float
    file: str


def doubts(path: Path, timestep_fs: float | None) -> list[str]:
    """A warning where a file beside the trajectory says another time step than the user does.

    LAMMPS' log (that writes this dump, with one time step in all of its runs), i-PI's input (whose prefix
    the file has) and VASP's INCAR (beside an XDATCAR) are looked at.
    """
    if timestep_fs is None:
        return []
    found = list(said(path))
    if not found or any(abs(each.timestep_fs / timestep_fs - 1) < SAME for each in found):
        return []
    first = found[0]
    return [
        f"{path}: {first.file} beside it says a time step of {first.timestep_fs:.6g} fs, and --timestep is "
        f"{timestep_fs:g} fs, which was taken: is it right? D goes with its inverse"
    ]


def lost_cells(path: Path) -> list[str]:
    """A warning where an XDATCAR of one cell lies beside an INCAR that lets the cell change: VASP writes the
    cell of every frame then, converters once."""
    incar = path.parent / "INCAR"
    if "XDATCAR" not in path.name or not incar.is_file() or incar.stat().st_size > MOST_BYTES:
        return []
    text = _text(incar)
    if not (VASP_MD.search(text) and FREE_CELL.search(text)):
        return []
    return [
        f"{path}: the cell is the same in all frames, but INCAR beside it (IBRION = 0, ISIF ≥ 3) lets it "
        "change: were the cells lost when the file was converted? The volume is that of the one cell; take "
        "VASP's own XDATCAR"
    ]


def said(path: Path) -> Iterator[Said]:
    """All time steps that files beside a trajectory say of it."""
    beside = ((other, read) for other in sorted(path.parent.iterdir()) if (read := _reader(other, path.name)))
    for other, read in islice(beside, MOST_FILES):
        if other.is_file() and other.stat().st_size <= MOST_BYTES:
            step = read(_text(other), path.name)
            if step is not None and step > 0:
                yield Said(step, other.name)


def _reader(other: Path, name: str) -> Callable[[str, str], float | None] | None:
    """What finds the time step of the trajectory `name` in a file beside it."""
    if other.name == name:
        return None
    if "log" in other.name.lower() or other.suffix == ".out":
        return _of_lammps
    if other.suffix == ".xml" or other.name == "RESTART":
        return _of_ipi
    return _of_vasp if other.name == "INCAR" and "XDATCAR" in name else None


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _of_lammps(text: str, name: str) -> float | None:
    """fs of a log that writes this dump, with the same units and step in all runs."""
    if not any(Path(each).name == name for each in DUMPED.findall(text)):
        return None
    units, steps = set(STYLE.findall(text)), {_number(each) for each in STEP.findall(text)}
    if len(units) != 1 or len(steps) > 1 or not units <= LAMMPS_FS.keys():
        return None
    style = units.pop()
    return (steps.pop() if steps else UNSAID[style]) * LAMMPS_FS[style]


def _of_ipi(text: str, name: str) -> float | None:
    prefixes, steps = PREFIX.findall(text), IPI_STEP.findall(text)
    if len(prefixes) != 1 or len(steps) != 1 or not name.startswith(prefixes[0] + "."):
        return None
    unit, value = steps[0]
    return _number(value) * IPI_FS[unit or "atomic_unit"] if (unit or "atomic_unit") in IPI_FS else None


def _of_vasp(text: str, name: str) -> float | None:
    found = POTIM.findall(text)
    return _number(found[0]) if len(found) == 1 and VASP_MD.search(text) else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
