"""Formats of MDAnalysis with positions only (XTC, TRR, DCD, NetCDF); a topology gives the elements."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import Frame, ReadOptions
from mlplugins.errors import BadInput, MissingDependency
from mlplugins.units import FS_PER_PS

NAME = "XTC, TRR, DCD or NetCDF (MDAnalysis)"
XTC, TRR, NETCDF = b"\x00\x00\x07\xcb", b"\x00\x00\x07\xc9", b"CDF"
REMEDY = (
    "give --topology FILE, a file with the elements in the same order that MDAnalysis reads (PDB, GRO, …)"
)


def matches(path: Path, head: bytes) -> bool:
    """Whether the file begins as XTC, TRR, DCD or (Amber) NetCDF."""
    return head[:4] in (XTC, TRR) or head[4:8] == b"CORD" or (head[:3] == NETCDF and path.suffix != ".traj")


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames with the MD steps and times of the file.

    A DCD holds neither: its header counts in units of the program that wrote it (AKMA of CHARMM, that of the
    run in LAMMPS) and does not say which. A frame number is never taken for an MD step.

    Raises:
        MissingDependency: MDAnalysis is not installed.
        BadInput: no topology, or one of other atoms.
    """
    if options.topology is None:
        raise BadInput(f"{path}: the file holds no elements; {REMEDY}")
    universe = _universe(path, options.topology)
    symbols = _elements(universe, options.topology)
    timed = universe.trajectory.format != "DCD"
    count = 0
    for step in _steps(universe, path):
        count += 1
        number = step.data.get("step") if timed else None
        box = step.triclinic_dimensions
        if not step.has_positions:
            raise BadInput(f"{path}: holds velocities or forces only; give a trajectory of positions")
        yield Frame(
            symbols=symbols,
            positions=np.array(step.positions, dtype=np.float64),
            cell=np.zeros((3, 3)) if box is None else np.array(box, dtype=np.float64),
            step=None if number is None else int(number),
            time_fs=float(step.time) * FS_PER_PS if timed else None,
        )
    if count < universe.trajectory.n_frames:
        options.warnings.append(f"{path}: ends inside a frame (a killed run?); {count} frames were read")


def _steps(universe: Any, path: Path) -> Iterator[Any]:
    try:
        yield from universe.trajectory
    except Exception as error:  # MDAnalysis' parsers of damaged files raise anything
        raise BadInput(f"{path}: damaged ({type(error).__name__}: {error})") from error


def _universe(path: Path, topology: Path) -> Any:
    try:
        import MDAnalysis
    except ImportError as error:
        raise MissingDependency("MDAnalysis is not installed; pip install 'mlplugins[analysis]'") from error
    if not topology.is_file():
        raise BadInput(f"no such topology: '{topology}'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # masses and types that nobody asks for
        try:
            return MDAnalysis.Universe(str(topology), str(path))
        except Exception as error:  # as above
            raise BadInput(f"{path} with topology {topology}: {error}") from error


def _elements(universe: Any, topology: Path) -> NDArray[np.str_]:
    for name in ("elements", "types", "names"):
        values = getattr(universe.atoms, name, None)
        if values is not None and all(str(value).strip() for value in values):
            return np.array([str(value).strip().capitalize() for value in values])
    raise BadInput(f"{topology}: no elements; {REMEDY}")
