"""All other formats that ASE reads frame by frame: .traj, vasprun.xml, NetCDF, DCD with a topology, …"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype

from mlplugins.analysis.readers._comment import Comment, ipi_title
from mlplugins.analysis.readers._text import Frame, ReadOptions, head, of_momenta, open_bytes
from mlplugins.errors import BadInput
from mlplugins.structures import foreign

NAME = "a format of ASE (.traj, …)"
LAST = True  # asked after all other readers
SQLITE = b"SQLite format 3"
MACHINE_LEARNED = re.compile(rb"ML_LMLFF\b[^\n\w]*T")
"""In the INCAR that begins vasprun.xml and OUTCAR."""
IPI_TITLE = re.compile(rb"^TITLE +.*(Step:.*|Bead:.*)$", re.MULTILINE)
"""What i-PI writes above the CRYST1 of its pdb files."""


def matches(path: Path, head: bytes) -> bool:
    """Whether ASE knows the format."""
    return head.startswith(SQLITE) or _format(path) is not None


def _format(path: Path) -> str | None:
    try:
        return filetype(str(path), guess=False)
    except (UnknownFileTypeError, OSError, ValueError, KeyError, IndexError):
        return None


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames as ASE reads them; a damaged end is dropped with a warning.

    Raises:
        BadInput: ASE cannot read it, or reads only some of its frames.
    """
    start = head(path, 1 << 16)
    if MACHINE_LEARNED.search(start):
        raise BadInput(
            f"{path}: of a run with machine-learned forces (ML_LMLFF), of which ASE reads only the ab initio "
            "steps, at unequal times; give the XDATCAR"
        )
    titles = _titles(path, options) if IPI_TITLE.search(start) else repeat(Comment(np.eye(3)))
    known = "db" if start.startswith(SQLITE) else None
    number = 0
    try:
        for atoms in iread(str(path), index=":", format=known):
            title = next(titles)
            number += 1
            periodic = atoms.pbc
            step = atoms.info.get("step", title.step)
            yield Frame(
                symbols=np.array(atoms.get_chemical_symbols()),
                positions=title.length * np.array(atoms.positions, dtype=np.float64),
                cell=title.cell @ np.array(atoms.cell.array, dtype=np.float64),
                periodic=(bool(periodic[0]), bool(periodic[1]), bool(periodic[2])),
                step=int(step) if step is not None else None,
                bead=title.bead,
                **_motion(atoms),
            )
    except BadInput:
        raise
    except Exception as error:  # ASE's parsers of damaged files raise anything
        if number == 0:
            raise BadInput(f"{path}: ASE cannot read it ({type(error).__name__}: {error})") from error
        options.warnings.append(f"{path}: unreadable after frame {number} ({error}); the rest was dropped")


def _motion(atoms: Atoms) -> dict[str, Any]:
    """Masses that the file states, and what it says of the motion."""
    foreign.take_masses(atoms)
    found = {"masses": atoms.get_masses()} if atoms.has("masses") else {}
    return found | of_momenta(atoms.get_momenta(), atoms.get_masses()) if atoms.has("momenta") else found


def _titles(path: Path, options: ReadOptions) -> Iterator[Comment]:
    """What i-PI says in the title of each frame of a pdb file, whose lengths need not be Å."""
    with open_bytes(path, options) as stream:
        for number, line in enumerate(line for line in stream if line.startswith(b"TITLE")):
            yield ipi_title(line.decode("utf-8", "replace"), f"{path}, frame {number + 1}")
