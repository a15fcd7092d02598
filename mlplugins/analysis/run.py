"""One run: how to read it, and the displacements obtained from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import Floats
from mlplugins.analysis.snapshots import Snapshots
from mlplugins.analysis.store import BUDGET_BYTES
from mlplugins.analysis.witnesses import Kinetic


@dataclass(frozen=True)
class ReadSettings:
    """How to read one run.

    Attributes:
        species: element of the mobile ions.
        timestep_fs: MD time step, fs; needed where the file does not hold times.
        interval: MD steps between frames; needed where the file holds no step numbers, and wins over them.
        type_map: elements of the LAMMPS types in order.
        drift: what is held fixed: the centre of mass of the `framework` (all other atoms), of `all` atoms,
            or `none`.
        progress: called with the fraction read so far and the number of frames.
        carriers: other mobile species, whose displacements are kept too.
        topology: file with the elements, for formats of MDAnalysis that hold none.
        memory_bytes: displacements beyond this are thinned to every second, fourth, … frame.
        volume_a3: volume of the material, Å³, where that of the cell is not it (slabs, wires).
    """

    species: str
    timestep_fs: float | None = None
    interval: int | None = None
    type_map: tuple[str, ...] = ()
    drift: str = "framework"
    progress: Callable[[float, int], None] | None = None
    carriers: tuple[str, ...] = ()
    topology: Path | None = None
    memory_bytes: int = BUDGET_BYTES
    volume_a3: float | None = None


@dataclass(frozen=True)
class Trajectory:
    """Displacements of the mobile ions of one run.

    Attributes:
        displacements: unwrapped, relative to the strain of the cell, drift removed, from the first frame
            (frames, ions, 3), Å.
        interval_fs: time between frames, fs.
        segments: [start, stop) of each stretch without a missing frame.
        volume_a3: mean volume of the material, Å³; NaN where the cell's is not it (a warning says why).
        framework_rms: root-mean-square displacement of each other element after drift removal (frames,), Å.
        drift: displacement of the reference that was removed (frames, 3), Å.
        collective: whether the collective displacement means anything.
        warnings: everything the reader dropped, assumed or doubts.
        others: displacements of the other carriers.
        start: positions of the mobile ions at zero displacement from the corner of the mean cell (ions, 3),
            Å; None if not known.
        cell: mean lattice vectors as rows, Å; None if not known, or not periodic in all directions.
        reading: what was taken as the motion of the atoms: image flags, nearest images, ….
        kinetic: temperature of the velocities of the mobile ions; None where the files hold none.
        snapshots: some frames with all atoms; None where the cell is not periodic in all directions.
        mass_u: mean of the mobile ions, u; None: standard.
        marks: of every frame that was read, as `twice.mark` gives them; None: not known.
        classical: not a bead of a path integral, which is hotter than the run.
    """

    species: str
    displacements: Floats
    interval_fs: float
    segments: tuple[tuple[int, int], ...]
    volume_a3: float
    n_atoms: int
    framework_rms: dict[str, Floats]
    drift: Floats
    collective: bool = True
    warnings: tuple[str, ...] = ()
    others: Mapping[str, Floats] = field(default_factory=dict)
    start: Floats | None = None
    cell: Floats | None = None
    reading: str = ""
    kinetic: Kinetic | None = None
    snapshots: Snapshots | None = None
    mass_u: float | None = None
    classical: bool = True
    marks: NDArray[np.uint64] | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.displacements.shape[0]

    @property
    def n_ions(self) -> int:
        """Number of mobile ions."""
        return self.displacements.shape[1]
