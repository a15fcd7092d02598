"""Paths in ASE: `ase.mep.NEB` with one calculator for all images."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.mep import NEB
from ase.optimize import FIRE

from mlplugins import files
from mlplugins.engines.band import ROUGH, ImageBand, Relaxed

LOG, STATE = "neb.log", "images.extxyz"
SAVE_EVERY = 10


def relax(band: ImageBand) -> Relaxed:
    """Optimise by FIRE, first without a climbing image; the images are saved every ten steps."""
    from mlplugins.engines.ase.calculator import MLCalculator  # torch: `mlplugins doctor` works without

    calculator = MLCalculator(band.model, device=band.device)
    images = list(_begun(band))
    for end in (images[0], images[-1]):  # else evaluated anew in every step
        energy = calculator.get_potential_energy(end)
        end.calc = SinglePointCalculator(end, energy=energy, forces=calculator.get_forces(end))
    for image in images[1:-1]:
        image.calc = calculator
    neb = NEB(images, k=band.spring, method="improvedtangent", allow_shared_calculator=True)
    stages = [(ROUGH * band.fmax, False), (band.fmax, True)] if band.climb else [(band.fmax, False)]
    total, steps, converged = len(stages) * band.steps, 0, False
    band.observer.start(0, total)
    for fmax, neb.climb in stages:
        with FIRE(neb, logfile=str(band.directory / LOG)) as optimiser:
            for done in optimiser.irun(fmax=fmax, steps=band.steps):
                converged = bool(done)
                if optimiser.nsteps % SAVE_EVERY == 0:
                    _save(images, band.directory / STATE)
                band.observer.step(steps + optimiser.nsteps, total)
            steps += optimiser.nsteps
        _save(images, band.directory / STATE)
    return Relaxed(tuple(images), np.array(neb.energies), steps, converged)


def _begun(band: ImageBand) -> tuple[Atoms, ...]:
    """The images that an interrupted call has saved, else the given ones."""
    path = band.directory / STATE
    if not path.is_file():
        return tuple(atoms.copy() for atoms in band.images)
    saved = ase.io.read(path, index=":", format="extxyz")
    return band.with_positions(np.array([atoms.positions for atoms in saved]))


def _save(images: list[Atoms], path: Path) -> None:
    plain = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in images]
    with files.replacing(path) as temporary:
        ase.io.write(temporary, plain, format="extxyz")
