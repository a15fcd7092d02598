"""Paths that an engine optimises (nudged elastic band): what it is given, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import NDArray

from mlplugins import files
from mlplugins.dynamics import start
from mlplugins.dynamics.process import RunningStage
from mlplugins.dynamics.run import Stage
from mlplugins.observer import SILENT, Observer

POLL_S, LOCK_WAIT_S = 0.2, 15.0
LOCK = ".lock"
ROUGH = 5.0
"""The band first relaxes without a climbing image, to this many times the wanted force."""


@dataclass(frozen=True)
class ImageBand:
    """A path between two minima.

    Attributes:
        model: the file, absolute.
        images: of the same atoms, cell and periodicity, without jumps across periodic boundaries; the first
            and last one stay as they are. Atoms are fixed whole or not at all.
        directory: where the host runs; exists. The images of an interrupted call are continued from there.
        fmax: largest force on an atom at which the band is converged, eV/Å.
        spring: constant of the springs between images, eV/Å².
        steps: of the optimiser at most, before and after the highest image begins to climb.
        climb: whether it does.
        device: as of `MLCalculator`.
        observer: told of the steps.
    """

    model: Path
    images: tuple[Atoms, ...]
    directory: Path
    fmax: float
    spring: float
    steps: int
    climb: bool = True
    device: str = "cpu"
    observer: Observer = SILENT

    @property
    def fixed(self) -> NDArray[np.intp]:
        """Numbers of the fixed atoms."""
        return np.flatnonzero(start.fixed_whole(self.images[0]))

    def with_positions(self, positions: NDArray[np.float64]) -> tuple[Atoms, ...]:
        """The images at (M, N, 3) positions of the host, which may have moved atoms across the boundaries;
        the end points are left alone."""
        images = [atoms.copy() for atoms in self.images]
        for atoms, place in list(zip(images, positions, strict=True))[1:-1]:
            moved, _ = find_mic(place - atoms.positions, atoms.cell, atoms.pbc)
            atoms.set_positions(atoms.positions + moved, apply_constraint=False)
        return tuple(images)


@dataclass(frozen=True)
class Relaxed:
    """An optimised path.

    Attributes:
        images: in the frame of those that were given.
        energies: (M,) as the host gives them, eV; None if it does not.
        steps: taken.
        converged: whether the host says so.
    """

    images: tuple[Atoms, ...]
    energies: NDArray[np.float64] | None
    steps: int
    converged: bool


def drive(stage: Stage, band: ImageBand, steps_done: Callable[[], int]) -> int:
    """Run the processes of a stage in the directory of the band to their end; the exit status.

    Args:
        stage: of the host.
        band: whose observer is told of the steps.
        steps_done: reads them off the host's files.
    """
    with files.locked(band.directory / LOCK, LOCK_WAIT_S) as lock:
        running = RunningStage(stage, band.directory, lock)
        total = 2 * band.steps if band.climb else band.steps
        band.observer.start(0, total)
        try:
            while (status := running.poll()) is None:
                time.sleep(POLL_S)
                band.observer.step(min(steps_done(), total), total)
        finally:
            running.stop()
    return status
