"""Energy conservation in LAMMPS: drift of NVE, and the same trajectory on one rank and on several."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.checks.result import Check
from mlplugins.engines import lammps
from mlplugins.engines.lammps import deck
from mlplugins.errors import MlpluginsError
from mlplugins.model_file.artifact import Artifact
from mlplugins.structures import state as states
from mlplugins.units import FS_PER_PS

Array = NDArray[np.float64]

SAME_STEPS = 100
SAME_ENERGY_EV = 1e-8
DRIFT = 1e-5
"""Largest drift of a float64 model, eV/atom/ps."""


@dataclass(frozen=True)
class NVE:
    """A run at constant energy.

    Attributes:
        timestep: fs.
        temperature: of the initial velocities, K.
        steps: MD steps.
        every: steps between rows.
    """

    timestep: float = 2.0
    temperature: float = 600.0
    steps: int = 2000
    every: int = 10


def total_energies(
    model: Artifact, atoms: Atoms, run: NVE, ranks: int, mode: str = "auto"
) -> tuple[Array, Array]:
    """Steps and total energies (eV) of an NVE run in LAMMPS, with the charge and spin of the structure."""
    commands = [
        f"timestep {run.timestep / FS_PER_PS:.12g}",
        f"velocity all create {run.temperature:g} 1 mom yes rot no dist gaussian",
        "thermo_style custom step etotal temp",
        "thermo_modify format float %.15g",
        f"thermo {run.every}",
        "fix move all nve",
        f"run {run.steps}",
    ]
    with tempfile.TemporaryDirectory(prefix="mlplugins-nve-") as folder:
        state = deck.words(states.keywords(atoms.info, tuple(model.inputs)))
        keywords = f"device {model.device} mode {mode} {state}"
        finished, _ = lammps.run_structure(model.path, atoms, commands, folder, ranks, keywords)
    table = finished.tables[-1]
    return table["Step"], table["TotEng"]


def drift(steps: Array, energies: Array, timestep: float, n_atoms: int) -> float:
    """Slope of a linear fit, eV/atom/ps; NaN if an energy is not finite.

    >>> drift(np.array([0.0, 500.0, 1000.0]), np.array([0.0, 1.0, 2.0]), 1.0, 2)
    1.0
    """
    if not np.isfinite(energies).all():
        return float("nan")
    slope = np.polyfit(steps * timestep / FS_PER_PS, (energies - energies[0]) / n_atoms, 1)[0]
    return round(float(slope), 12)


def md_checks(model: Artifact, label: str, atoms: Atoms, ranks: Sequence[int], run: NVE) -> list[Check]:
    """Drift on the first number of ranks, and the first steps of the others against it."""
    rows: list[Check] = []
    first = ranks[0]
    limit = DRIFT if model.dtype == "float64" else 10 * DRIFT
    try:
        steps, energies = total_energies(model, atoms, run, first)
        value = abs(drift(steps, energies, run.timestep, len(atoms)))
        note = f"{run.steps} steps of {run.timestep:g} fs from {run.temperature:g} K"
        rows.append(Check("NVE drift", "lammps", first, value, limit, "eV/atom/ps", label, note))
    except MlpluginsError as error:
        return [Check("NVE drift", "lammps", first, np.nan, limit, "eV/atom/ps", label, str(error))]
    short = NVE(run.timestep, run.temperature, SAME_STEPS, 10)
    for count in ranks[1:]:
        name = f"NVE: first {SAME_STEPS} steps as on {first}"
        limit = (
            SAME_ENERGY_EV if model.dtype == "float64" else np.finfo(np.float32).eps * 4 * abs(energies[0])
        )
        try:
            _, a = total_energies(model, atoms, short, first)
            _, b = total_energies(model, atoms, short, count)
            rows.append(Check(name, "lammps", count, float(np.abs(a - b).max()), float(limit), "eV", label))
        except MlpluginsError as error:
            rows.append(Check(name, "lammps", count, np.nan, float(limit), "eV", label, str(error)))
    return rows
