"""All that a report holds beyond D, σ and H of one temperature: each from a file of its own, on the same
pooled displacements and in the same fit window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.bayes import kinisi_posterior, msd_points, posterior, window_points
from mlplugins.analysis.blocks import Paths, msd_band
from mlplugins.analysis.conductivity import MELTED_A, AnalysisSettings, RunResult, analyse, pool
from mlplugins.analysis.convergence import Convergence, convergence
from mlplugins.analysis.diffusion import collective_paths
from mlplugins.analysis.finite_size import yeh_hummer
from mlplugins.analysis.green_kubo import GreenKubo
from mlplugins.analysis.matrix import DiffusionTensor, diffusion_tensor
from mlplugins.analysis.onsager import Onsager, State, onsager
from mlplugins.analysis.sites import (
    ASSIGNED_AT_ONCE,
    Hops,
    Sites,
    assign,
    find_sites,
    hop_statistics,
    pooled,
)
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.analysis.value import UNDETERMINED, Value
from mlplugins.analysis.vanhove import VanHove, van_hove
from mlplugins.errors import BadInput
from mlplugins.units import FS_PER_PS

Floats = NDArray[np.float64]
HOP_SPACING_FS = 100.0
POINTS = 1_000_000
"""Ion positions that sites are found from: longer runs are thinned for that."""
VAN_HOVE_LAGS = (0.25, 1.0, 4.0)
"""Lags of the van Hove functions in units of the time to travel a hop."""


@dataclass(frozen=True)
class Further:
    """Further results of one temperature; None where the data do not allow it.

    Attributes:
        bayes, bayes_collective: posterior of the Bayesian regression, cm²/s.
        infinite: D* corrected for the finite size of the cell, cm²/s.
        band, collective_band: lags (ps), MSD and its standard error (Å²).
    """

    tensor: DiffusionTensor
    bayes: Value | None
    bayes_collective: Value | None
    convergence: Convergence
    onsager: Onsager | None
    hops: Hops | None
    correlation_factor: float | None
    van_hove: VanHove | None
    infinite: Value | None
    band: tuple[Floats, Floats, Floats]
    collective_band: tuple[Floats, Floats, Floats] | None = None
    green_kubo: GreenKubo | None = None
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Further keys of an entry of `runs`."""
        return {
            "D_tensor_cm2_s": self.tensor.as_json(),
            "D_bayes_cm2_s": _json(self.bayes),
            "D_collective_bayes_cm2_s": _json(self.bayes_collective),
            "convergence": self.convergence.as_json(),
            "onsager": self.onsager.as_json() if self.onsager else None,
            "hops": self.hops.as_json() if self.hops else None,
            "correlation_factor": self.correlation_factor,
            "D_infinite_cm2_s": _json(self.infinite),
            "green_kubo": self.green_kubo.as_json() if self.green_kubo else None,
        }


def _json(value: Value | None) -> dict[str, float] | None:
    return value.as_json() if value else None


def study(trajectories: Sequence[Trajectory], temperature_k: float, settings: AnalysisSettings) -> RunResult:
    """`analyse`, and everything else that the trajectories allow."""
    _require_liquid(trajectories, settings)
    result = analyse(trajectories, temperature_k, settings)
    paths, slices, _ = pool(trajectories, settings.discard_ps)
    found = further(trajectories, paths, slices, result, settings)
    texts = [f"{temperature_k:g} K: {text}" for text in found.warnings]
    return replace(result, further=found, warnings=(*result.warnings, *texts))


def further(
    trajectories: Sequence[Trajectory],
    paths: Paths,
    slices: Sequence[slice],
    result: RunResult,
    settings: AnalysisSettings,
) -> Further:
    """Everything beyond `analyse`; what cannot be had says so in the warnings."""
    has_charge = result.diffusion.collective is not None
    charge = collective_paths(paths) if has_charge else None
    notes: list[str] = []
    hops = _hops(trajectories, paths, slices, settings, notes)
    made = Further(
        tensor=diffusion_tensor(paths, result.diffusion),
        bayes=_bayes(paths, result, settings.sampler),
        bayes_collective=_bayes(charge, result, settings.sampler) if charge else None,
        convergence=convergence(paths, result.diffusion, settings.estimator, has_charge),
        onsager=_onsager(trajectories, paths, slices, result, settings),
        hops=hops,
        correlation_factor=_correlation_factor(result, hops),
        van_hove=_van_hove(trajectories[0], paths, slices[0], result, settings),
        infinite=_infinite(result, settings),
        band=msd_band(paths),
        collective_band=msd_band(charge) if charge else None,
    )
    return replace(made, warnings=(*notes, *_doubts(made, result)))


def _bayes(paths: Paths, result: RunResult, sampler: str) -> Value | None:
    points = msd_points(paths, window_points(paths, result.diffusion.window))
    closed = posterior(points, paths.interval_fs)
    if sampler == "kinisi" and closed is not None:
        return kinisi_posterior(points, paths.interval_fs)
    return closed


def _onsager(
    trajectories: Sequence[Trajectory],
    paths: Paths,
    slices: Sequence[slice],
    result: RunResult,
    settings: AnalysisSettings,
) -> Onsager | None:
    if not settings.carriers or not np.isfinite(result.volume_a3):
        return None
    species: dict[str, Sequence[Floats]] = {result.species: paths.displacements}
    for name in settings.carriers:
        species[name] = [run.others[name][part] for run, part in zip(trajectories, slices)]
    charges = {result.species: settings.charge, **settings.carriers}
    state = State(result.temperature_k, result.volume_a3)
    return onsager(species, charges, paths, result.diffusion, state)


def _hops(
    trajectories: Sequence[Trajectory],
    paths: Paths,
    slices: Sequence[slice],
    settings: AnalysisSettings,
    notes: list[str],
) -> Hops | None:
    """Of all runs together, at about 0.1 ps per frame; sites are found in each run by itself."""
    found: list[Hops] = []
    failed: list[str] = []
    every = max(1, int(HOP_SPACING_FS / paths.interval_fs))
    for run, part, segments in zip(trajectories, slices, paths.segments):
        if run.start is None or run.cell is None or not run.framework_rms:
            continue
        moved = run.displacements[part]
        rows = [moved[start:stop:every] for start, stop in segments if (stop - start) // every > 1]
        try:
            sites = _sites(rows, run, settings)
        except BadInput as error:
            failed.append(str(error))
            continue
        found += [_hops_of(row, run.start, sites, paths.interval_fs * every) for row in rows]
    if failed:
        share = f" of {len(failed)} of {len(trajectories)} runs" if found else ""
        notes.append(f"no hop statistics{share}: {failed[0]}")
    return pooled(found) if found else None


def _sites(rows: Sequence[Floats], run: Trajectory, settings: AnalysisSettings) -> Sites:
    if run.start is None or run.cell is None:
        raise BadInput("no positions of the ions, or no cell")
    if settings.sites is not None:
        return Sites(settings.sites, run.cell)
    thin = max(1, sum(len(row) for row in rows) * run.n_ions // POINTS)
    return find_sites(np.concatenate([row[::thin] for row in rows]) + run.start, run.cell)


def _hops_of(row: Floats, start: Floats, sites: Sites, interval_fs: float) -> Hops:
    """Of one stretch, some ions at a time."""
    size = max(1, ASSIGNED_AT_ONCE // len(row))
    groups = [slice(first, first + size) for first in range(0, row.shape[1], size)]
    states = [assign(row[:, group] + start[group], sites) for group in groups]
    return hop_statistics(np.concatenate(states, axis=1), sites, interval_fs)


def _correlation_factor(result: RunResult, hops: Hops | None) -> float | None:
    """f = D*/D_jump."""
    if hops is None or not hops.count or not hops.jump_diffusion_cm2_s.value:
        return None
    return result.diffusion.tracer.value / hops.jump_diffusion_cm2_s.value


def _van_hove(
    run: Trajectory, paths: Paths, part: slice, result: RunResult, settings: AnalysisSettings
) -> VanHove | None:
    start, stop = max(paths.segments[0], key=lambda part: part[1] - part[0])
    length = stop - start
    curve = result.curve
    hop_ps = float(np.interp(settings.hop_length_a**2, curve.tracer, curve.time_ps))
    lags = [round(factor * hop_ps * FS_PER_PS / paths.interval_fs) for factor in VAN_HOVE_LAGS]
    lags = sorted({int(np.clip(lag, 1, length // 2)) for lag in lags})
    moved = paths.displacements[0][start:stop]
    return van_hove(moved, lags, paths.interval_fs, run.start, run.cell)


def _require_liquid(trajectories: Sequence[Trajectory], settings: AnalysisSettings) -> None:
    moved = [float(rms[-1]) for run in trajectories for rms in run.framework_rms.values()]
    if settings.viscosity_mpa_s is not None and moved and max(moved) <= MELTED_A:
        raise BadInput(
            "--viscosity: the finite-size correction is hydrodynamic and holds for liquids; "
            f"this trajectory has a framework that stands still ({max(moved):.2g} Å rms at the end)"
        )


def _infinite(result: RunResult, settings: AnalysisSettings) -> Value | None:
    if settings.viscosity_mpa_s is None or not np.isfinite(result.volume_a3):
        return None
    shift = yeh_hummer(result.temperature_k, settings.viscosity_mpa_s, result.volume_a3)
    d = result.diffusion.tracer
    return Value(
        d.value + shift, d.low + shift, d.high + shift, d.relative_error * d.value / (d.value + shift)
    )


def _doubts(made: Further, result: RunResult) -> list[str]:
    """Where the independent checks contradict the main numbers."""
    texts = []
    tracer = result.diffusion.tracer
    bayes = made.bayes
    comparable = bayes is not None and tracer.value > 0 and not result.diffusion.curved
    if bayes is not None and comparable and (bayes.high < tracer.low or bayes.low > tracer.high):
        texts.append(
            f"the Bayesian regression gives D = {bayes.value:.3g} [{bayes.low:.3g}, {bayes.high:.3g}] "
            "cm²/s, outside the interval of the main fit"
        )
    collective, haven = result.diffusion.collective, result.diffusion.haven
    if collective is not None and tracer.value > 0 and (haven is None or not haven.determined):
        known = haven is not None and haven.low > 0 and haven.high < UNDETERMINED * haven.low
        span = f"spans a factor of {haven.high / haven.low:.2g}" if haven and known else "is unbounded"
        texts.append(
            "the collective displacement of this trajectory does not determine σ collective and the Haven "
            f"ratio (the 95 % interval of H {span}): do not quote "
            "them; run longer or with more seeds"
        )
    others = made.onsager.carriers[1:] if made.onsager else ()
    texts += [
        f"the MSD of {carrier.species} is curved in the fit window (that of {result.species}): its D* "
        f"and the "
        "L_ij with it are uncertain beyond their intervals; choose another with --fit-window"
        for carrier in others
        if carrier.curved
    ]
    if bayes is None and tracer.value > 0:
        texts.append(
            "no Bayesian posterior: the scatter of the MSD does not grow with the lag as that of "
            "a diffusing ion"
        )
    if not made.convergence.settled and len(made.convergence.tracer) > 1:
        texts.append(
            "D still changes with the length of the trajectory by more than its interval; run longer"
        )
    return texts
