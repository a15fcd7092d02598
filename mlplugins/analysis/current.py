"""The charge current from files: velocities of a LAMMPS dump, or a correlation that LAMMPS wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.green_kubo import GreenKubo, charge_current, from_correlate, green_kubo, masses_of
from mlplugins.analysis.readers._text import Floats, ReadOptions, head
from mlplugins.analysis.timegrid import uniform_grid
from mlplugins.analysis.trajectory import read_frames
from mlplugins.errors import BadInput
from mlplugins.units import ASE_TIME_PER_FS, BOLTZMANN_EV_K, FS_PER_PS


@dataclass(frozen=True)
class CurrentSource:
    """Where J comes from: the file, charges (e) by element, MD time step (fs), elements of LAMMPS types,
    equilibration left out of a dump (ps; a correlation holds what LAMMPS summed up)."""

    path: Path
    charges: Mapping[str, float]
    timestep_fs: float | None = None
    type_map: tuple[str, ...] = ()
    discard_ps: float = 0.0


def green_kubo_of(source: CurrentSource, volume_a3: float, temperature_k: float) -> GreenKubo:
    """σ by Green–Kubo from a dump with vx vy vz, or from the file of a `fix ave/correlate`.

    Raises:
        BadInput: no such file, no velocities, no time step, gaps between the frames.
    """
    if not source.path.is_file():
        raise BadInput(f"no such file for Green–Kubo: '{source.path}'")
    if head(source.path).startswith(b"#"):
        if source.timestep_fs is None:
            raise BadInput(f"{source.path}: a correlation file holds steps; give --timestep")
        return from_correlate(source.path, source.timestep_fs, volume_a3, temperature_k)
    steps: list[int] = []
    times: list[float | None] = []
    frames = _velocities(source, steps, times)
    temperatures: list[float] = []
    current = charge_current(_weighed(frames, temperatures), dict(source.charges))
    _check_temperature(source.path, float(np.mean(temperatures)), temperature_k)
    grid = uniform_grid(steps, times, source.timestep_fs)
    if len(grid.segments) > 1 or len(grid.frames) < len(steps):
        raise BadInput(f"{source.path}: frames are missing or uneven; Green–Kubo needs them at equal times")
    skip = round(source.discard_ps * FS_PER_PS / grid.interval_fs)
    return green_kubo(current[skip:], grid.interval_fs, volume_a3, temperature_k)


def _weighed(
    frames: Iterator[tuple[NDArray[np.str_], Floats]], temperatures: list[float]
) -> Iterator[tuple[NDArray[np.str_], Floats]]:
    """The same frames; their kinetic temperatures (K) are appended."""
    known: NDArray[np.str_] | None = None
    for symbols, velocities in frames:
        if symbols is not known:
            known, masses = symbols, masses_of(symbols)
        kinetic = float(masses @ ((velocities / ASE_TIME_PER_FS) ** 2).sum(axis=1))  # eV, twice
        temperatures.append(kinetic / (3 * len(symbols) * BOLTZMANN_EV_K))
        yield symbols, velocities


def _check_temperature(path: Path, found: float, expected: float) -> None:
    """Velocities in the wrong unit are off by a thousand; elements by the wrong map, by less."""
    if not 0.5 < found / expected < 2:
        raise BadInput(
            f"{path}: the velocities are those of {found:.3g} K, the run is at {expected:g} K; wrong units "
            "or elements? A dump says its units with: dump_modify ID units yes"
        )


def _velocities(
    source: CurrentSource, steps: list[int], times: list[float | None]
) -> Iterator[tuple[NDArray[np.str_], Floats]]:
    for number, frame in enumerate(
        read_frames(source.path, ReadOptions(type_map=source.type_map, velocities=True))
    ):
        if frame.velocities is None:
            raise BadInput(
                f"{source.path}: no velocities; dump them with: dump 2 all custom 5 v.dump id element x "
                f"y z vx vy vz"
            )
        if steps and frame.step is not None and frame.step <= steps[-1]:
            continue  # written again after a restart
        steps.append(frame.step if frame.step is not None else number)
        times.append(frame.time_fs)
        yield frame.symbols, frame.velocities
