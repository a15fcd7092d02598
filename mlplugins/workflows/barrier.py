"""Migration barriers: end points, the path between them in any engine, and what the model says along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from mlplugins import engines, files
from mlplugins.analysis import barrier as paths
from mlplugins.analysis.barrier import Barrier, Profile
from mlplugins.analysis.barrier_report import write_report
from mlplugins.dynamics import start
from mlplugins.engines.ase.calculator import SPREADS, MLCalculator
from mlplugins.engines.band import ImageBand, Relaxed
from mlplugins.model_file.artifact import evaluate_together
from mlplugins.observer import SILENT, Observer
from mlplugins.workflows import _barrier_ends as ends
from mlplugins.workflows._barrier_config import RECORD, BarrierConfig, band_optimiser, load, record

Array = NDArray[np.float64]

ENDS, PATH, RESULT, LOCK = "ends.extxyz", "path.extxyz", "barrier.json", "lock"
LOCK_WAIT_S = 15.0
SADDLE_SLACK = 1.1
"""Times `fmax`: forces on the saddle, which the engine may have computed in other digits."""
HOST_OFF = 1e-3
"""Energies of the engine that differ by more from the model's, eV, are not of the same potential."""


def barrier(
    config: BarrierConfig | Path | str | Mapping[str, Any],
    directory: Path | str = "barrier",
    observer: Observer = SILENT,
) -> Barrier:
    """Energy barrier between two minima by a climbing-image nudged elastic band in ASE, LAMMPS or i-PI.

    The folder is the state: the same call continues what was interrupted.

    Args:
        config: of `mlplugins barrier`: a YAML file or its content.
        directory: for all files; the report is `report.html`.
        observer: told of the progress.

    Raises:
        BadInput: a wrong configuration, another one than the folder was begun with, end points between which
            there is no hop.
        RunFailed: end points that do not relax, or to the same minimum; an engine that stopped.

    The page docs/barrier.md has an example that is run by the tests.
    """
    settings = config if isinstance(config, BarrierConfig) else load(config)
    folder = Path(directory).absolute()
    files.require_writable(folder, "directory", folder=True)
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / LOCK, LOCK_WAIT_S):
        record(settings, folder)  # refuses another one; written with the end points, which may be refused too
        calculator = MLCalculator(settings.model, device=settings.device)
        found = _ends(settings, calculator, folder, observer)
        if settings.vibrations:  # refused before the work if the model has no second derivatives
            calculator.get_hessian(found.initial)
        images = ends.interpolated(found.initial, found.final, settings.images)
        relaxed = _optimised(settings, calculator, images, folder, observer)
        result = _result(settings, calculator, relaxed, found.notes)
        files.write_json(folder / RESULT, result.as_json())
        with files.replacing(folder / PATH) as temporary:
            ase.io.write(temporary, result.images, format="extxyz")
        write_report(result, folder)
    return result


def _ends(config: BarrierConfig, calculator: MLCalculator, folder: Path, observer: Observer) -> ends.Ends:
    """The relaxed end points, as an earlier call left them if there was one."""
    path = folder / ENDS
    if path.is_file():
        initial, final = ase.io.read(path, index=":", format="extxyz")
        notes = tuple(str(initial.info.pop("notes")).split("; "))
        return ends.Ends(initial, final, notes)
    found = ends.relaxed(ends.given(config, calculator, observer), calculator, config, observer)
    files.write_json(folder / RECORD, record(config, folder))
    both = [found.initial.copy(), found.final.copy()]
    both[0].info["notes"] = "; ".join(found.notes)
    with files.replacing(path) as temporary:
        ase.io.write(temporary, both, format="extxyz")
    return found


def _optimised(
    config: BarrierConfig, calculator: MLCalculator, images: Sequence[Atoms], folder: Path, observer: Observer
) -> Relaxed:
    """The path, optimised by the engine in a folder of its own."""
    directory = folder / config.engine
    directory.mkdir(exist_ok=True)
    band = ImageBand(
        model=calculator.artifacts[0].path,
        images=tuple(images),
        directory=directory,
        fmax=config.fmax,
        spring=config.spring,
        steps=config.steps,
        climb=config.climb,
        device=config.device,
        observer=observer,
    )
    return band_optimiser(config.engine)(band)


def _result(
    config: BarrierConfig, calculator: MLCalculator, relaxed: Relaxed, notes: Sequence[str]
) -> Barrier:
    """What the model says of the path that the engine has found: the same evaluation for every engine."""
    images = relaxed.images
    fixed = start.fixed_whole(images[0])
    energies, forces, members, own = [], [], [], []
    predicts = SPREADS[0] in calculator.implemented_properties
    for atoms in images:
        (found,) = evaluate_together(calculator.artifacts, [atoms])
        energies.append(found.mean.energy)
        forces.append(np.where(fixed[:, None], 0.0, found.mean.forces))
        members.append([member.energy for member in found.members])
        if predicts and len(members[-1]) == 1:
            own.append(float(calculator.get_property(SPREADS[0], atoms)))
    profile = Profile(np.array([a.positions for a in images]), np.array(energies), np.array(forces))
    for atoms, energy, force in zip(images, energies, forces):
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=force)
    modes = None
    if config.vibrations:
        pair = images[0], images[profile.top]
        hessians = tuple(calculator.get_hessian(a).reshape(3 * len(a), 3 * len(a)) for a in pair)
        modes = paths.modes(*pair, (hessians[0], hessians[1]), ~fixed)
    saddle = float(profile.residuals()[profile.top])
    converged = relaxed.converged and (saddle <= SADDLE_SLACK * config.fmax or not config.climb)
    several = np.array(members).T
    return Barrier(
        engine=engines.load(config.engine).TITLE,
        formula=images[0].get_chemical_formula(),
        images=images,
        profile=profile,
        fixed=fixed,
        converged=converged,
        steps=relaxed.steps,
        fmax=config.fmax,
        climb=config.climb,
        members=several if len(several) > 1 else np.empty((0, len(images))),
        uncertainties=np.array(own) if own else None,
        host=relaxed.energies,
        modes=modes,
        assumptions=tuple(_assumptions(config, notes)),
        warnings=tuple(_warnings(config, profile, converged, relaxed, modes)),
    )


def _assumptions(config: BarrierConfig, notes: Sequence[str]) -> list[tuple[str, str]]:
    springs = f"{config.spring:g} eV/Å² along improved tangents"
    return [
        ("model", Path(config.model).name),
        ("end points", "; ".join(notes)),
        ("cell", "fixed" if config.cell == "fixed" else "relaxed for the crystal or the first structure"),
        ("start of the path", "image-dependent pair potential"),
        ("springs", springs),
        (
            "highest image",
            "climbs to the saddle" if config.climb else "does not climb: maximum of the spline",
        ),
        ("forces", f"at most {config.fmax:g} eV/Å on an atom; {config.fmax / 2:g} at the end points"),
    ]


def _warnings(
    config: BarrierConfig, profile: Profile, converged: bool, relaxed: Relaxed, modes: paths.Modes | None
) -> list[str]:
    """Why the barrier is not to be quoted."""
    found = []
    if not converged:
        force = float(profile.residuals()[1:-1].max())
        found.append(
            f"not converged: {force:.3g} eV/Å remain after {relaxed.steps} steps, expected {config.fmax:g}: "
            "the same command with a larger 'steps' goes on"
        )
    if profile.top in (0, len(relaxed.images) - 1):
        found.append(
            "no image is higher than the end points: there is no barrier on this path, or too few images to "
            "see it"
        )
    for point in profile.between():
        found.append(
            f"an intermediate minimum of {point.energy:.3f} eV at {point.coordinate:.2f} Å along the path: "
            "more than one hop. Relax the image there and find the two paths from it"
        )
    if relaxed.energies is not None:
        off = float(np.abs(np.diff(relaxed.energies - profile.energies)).max())
        if off > HOST_OFF:
            found.append(f"energies of the engine and of the model along the path differ by {off:.2g} eV")
    if modes is not None and len(modes.imaginary_thz) != 1:
        found.append(f"the saddle has {len(modes.imaginary_thz)} imaginary modes, expected one")
    return found
