"""What files do not say, and what of it makes no sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlplugins.analysis.spectra.kinds import CORRECTIONS, SpectrumKind
from mlplugins.analysis.spectra.runs import Reading
from mlplugins.errors import BadInput, nearest
from mlplugins.structures.components import checked_order

LASER_NM = (100.0, 2500.0)
"""Light beyond the infrared has less energy than a bond to H."""
WIDTH_CM = 10.0
"""Default width of a line, cm⁻¹."""


@dataclass(frozen=True)
class Settings:
    """What the files do not say.

    Attributes:
        timestep_fs: MD time step, fs, where the files count steps.
        interval_fs: between samples, fs; instead of `timestep_fs`.
        temperature_k: K; of velocities None is their own.
        volume_a3: Å³, of intensities per volume; None: of periodic frames their own, else the whole system.
        unit: of the series; None: as the kind of file says.
        columns: names of columns or of the property of frames; () finds them.
        order: of six components of a polarizability, e.g. `xx yy zz yz xz xy`.
        species: elements of arrays of velocities, or of LAMMPS' types.
        beads: every so many files are the beads of one run; None: one, unless their names say more.
        width_cm: full width of a line at half height, cm⁻¹; None chooses.
        window_fs: length of the window; instead of `width_cm`.
        low_cm, high_cm: of figures, tables and peaks.
        highest_cm: the highest mode of the system; None: not known.
        correction: quantum correction, of `CORRECTIONS`.
        laser_nm: wave length of the light that is scattered; None: Raman activities.
        cell: 3 or 9 numbers, Å: jumps of the dipole by cell vectors are taken back.
        keep_jumps: the dipole may jump.
        discard_ps: left out at the start of each run.
        experiment: file of two columns, cm⁻¹ and intensity.
        experiment_scale: factor on it; None: to the same area.
    """

    timestep_fs: float | None = None
    interval_fs: float | None = None
    temperature_k: float | None = None
    volume_a3: float | None = None
    unit: str | None = None
    columns: tuple[str, ...] = ()
    order: str | None = None
    species: tuple[str, ...] = ()
    beads: int | None = None
    width_cm: float | None = None
    window_fs: float | None = None
    low_cm: float = 0.0
    high_cm: float | None = None
    highest_cm: float | None = None
    correction: str = "harmonic"
    laser_nm: float | None = None
    cell: tuple[float, ...] = ()
    keep_jumps: bool = False
    discard_ps: float = 0.0
    experiment: Path | None = None
    experiment_scale: float | None = None


def require(kind: SpectrumKind, settings: Settings, paths: Sequence[Path | str]) -> None:
    """Refuse settings without meaning.

    Raises:
        BadInput: naming the setting.
    """
    if not paths:
        raise BadInput(f"expected one file with {kind.what} or more, got none")
    names = ("timestep_fs", "interval_fs", "temperature_k", "volume_a3", "width_cm", "window_fs", "high_cm")
    for name in (*names, "highest_cm", "laser_nm", "experiment_scale"):
        value = getattr(settings, name)
        if value is not None and not (np.isfinite(value) and value > 0):
            raise BadInput(f"{name}: expected a positive number, got {value}")
    if settings.laser_nm is not None and not LASER_NM[0] <= settings.laser_nm <= LASER_NM[1]:
        raise BadInput(
            f"laser_nm: expected a wave length between {LASER_NM[0]:g} and {LASER_NM[1]:g} nm, got "
            f"{settings.laser_nm:g}"
        )
    if settings.correction not in CORRECTIONS:
        raise BadInput(f"correction: '{settings.correction}': {nearest(settings.correction, CORRECTIONS)}")
    if settings.order is not None:
        checked_order(settings.order, "order")
    if settings.width_cm and settings.window_fs:
        raise BadInput("width_cm and window_fs: expected one of the two")
    if kind.name in ("ir", "raman") and settings.temperature_k is None:
        raise BadInput("intensities need the temperature of the runs: --temperature (K)")
    if settings.high_cm is not None and settings.high_cm <= settings.low_cm:
        raise BadInput(f"range: {settings.low_cm:g} to {settings.high_cm:g} cm⁻¹: expected low below high")
    if settings.discard_ps < 0 or settings.low_cm < 0:
        raise BadInput(
            f"expected discard_ps ≥ 0 and low_cm ≥ 0, got {settings.discard_ps}, {settings.low_cm}"
        )
    _require_runs(settings, [Path(path) for path in paths])


def _require_runs(settings: Settings, paths: Sequence[Path]) -> None:
    if settings.beads is not None and (settings.beads < 1 or len(paths) % settings.beads):
        raise BadInput(f"{len(paths)} files cannot be runs of {settings.beads} beads")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise BadInput(f"{path}: named twice; a run counts once")
        seen.add(path.resolve())
    if settings.beads is None:
        _refuse_beads(paths)


def _refuse_beads(paths: Sequence[Path]) -> None:
    """Files that i-PI wrote for the beads of one run are not several runs."""
    stems: dict[str, list[Path]] = {}
    for path in paths:
        stem, _, number = str(path.with_suffix("") if path.suffix == ".xyz" else path).rpartition("_")
        if stem and number.isdigit():
            stems.setdefault(stem, []).append(path)
    for stem, group in stems.items():
        if len(group) > 1:
            raise BadInput(
                f"{group[0].name} and {group[1].name} look like the beads of one path integral "
                f"({Path(stem).name}_…): --beads {len(group)}; --beads 1, if they are separate "
                "runs"
            )


def reading(settings: Settings) -> Reading:
    """How the files are to be read.

    Raises:
        BadInput: a cell that is none.
    """
    cell = None
    if len(settings.cell) not in (0, 3, 9):
        raise BadInput(f"cell: expected 3 or 9 numbers, got {len(settings.cell)}")
    if settings.cell:
        numbers = np.array(settings.cell, dtype=np.float64)
        cell = np.diag(numbers) if len(numbers) == 3 else numbers.reshape(3, 3)
        if abs(np.linalg.det(cell)) < 1e-6:
            raise BadInput(f"cell: {', '.join(f'{x:g}' for x in numbers)} have no volume")
    return Reading(settings.unit, settings.columns, settings.species, cell, settings.keep_jumps)
