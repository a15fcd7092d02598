"""All other formats that ASE reads frame by frame: .traj, vasprun.xml, NetCDF, DCD with a topology, …"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype

from mlplugins.analysis.readers._text import Frame, ReadOptions
from mlplugins.errors import BadInput

NAME = "a format of ASE (.traj, …)"
LAST = True  # asked after all other readers


def matches(path: Path, head: bytes) -> bool:
    """Whether ASE knows the format."""
    try:
        return filetype(str(path), guess=False) is not None
    except (UnknownFileTypeError, OSError, ValueError, KeyError, IndexError):
        return False


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames as ASE reads them; a damaged end is dropped with a warning."""
    number = 0
    try:
        for atoms in iread(str(path), index=":"):
            number += 1
            periodic = atoms.pbc
            step = atoms.info.get("step")
            yield Frame(
                symbols=np.array(atoms.get_chemical_symbols()),
                positions=np.array(atoms.positions, dtype=np.float64),
                cell=np.array(atoms.cell.array, dtype=np.float64),
                periodic=(bool(periodic[0]), bool(periodic[1]), bool(periodic[2])),
                step=int(step) if step is not None else None,
            )
    except Exception as error:  # ASE's parsers of damaged files raise anything
        if number == 0:
            raise BadInput(f"{path}: ASE cannot read it ({type(error).__name__}: {error})") from error
        options.warnings.append(f"{path}: unreadable after frame {number} ({error}); the rest was dropped")
