"""Ionic conductivity at one temperature: D, σ (tracer and collective), the Haven ratio, and warnings.

σ_tracer = N z² e² D* / (V k T) (Nernst–Einstein, ions that move independently); σ_collective is the same
with D_σ, the slope of the collective displacement P = Σ r: e²z²/(6 V k T) · d⟨‖ΔP‖²⟩/dt. H =
σ_tracer/σ_collective = D*/D_σ. Warnings on few hops follow X. He, Y. Zhu, A. Epstein, Y. Mo, npj Comput.
Mater. 4, 18 (2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlplugins.analysis import charges, thermal
from mlplugins.analysis.diffusion import Diffusion
from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import MELTED_A, AnalysisSettings, Sample
from mlplugins.analysis.slopes import CONTRADICTION
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.analysis.witnesses import hotter_or_colder
from mlplugins.units import conductivity_ms_cm

__all__ = ["AnalysisSettings", "RunResult", "analyse"]

FEW_HOPS = 50.0
DIFFUSIVE_SLOPE = 0.8
FEW_WINDOWS = 10.0
FASTEST_CM2_S = 1e-3


def analyse(
    trajectories: Sequence[Trajectory],
    temperature_k: float,
    settings: AnalysisSettings,
    observables: Mapping[str, Observable[Any]] | None = None,
) -> RunResult:
    """Pool the runs of one temperature into D, σ and the Haven ratio with 95 % intervals.

    Args:
        trajectories: the runs.
        temperature_k: of all of them.
        settings: charge, fit, what the observables need.
        observables: what else to compute, e.g. all of `mlplugins.analysis.observables.base.registered()`.

    Raises:
        BadInput: temperature or charge that make no sense, runs of different systems or frame spacings, too
            short runs, settings that an observable refuses.
    """
    chosen = observables or {}
    sample = Sample.of(trajectories, temperature_k, settings)
    result, volume = sample.diffusion, sample.volume_a3
    unit = conductivity_ms_cm(sample.n_ions * settings.charge**2, volume, temperature_k)
    known = bool(np.isfinite(volume))
    read = [*sample.notes, *(text for run in trajectories for text in run.warnings)]
    texts = [*dict.fromkeys(read), *charges.doubts(sample.species, settings), *_doubts(sample)]
    notes: list[str] = []
    found = {name: each.compute(sample, notes) for name, each in chosen.items()}
    texts += notes
    entries: dict[str, object] = {}
    for name, each in chosen.items():
        entries |= each.entries(found[name])
        texts += each.doubts(found[name], sample)
    return RunResult(
        temperature_k=sample.temperature_k,
        species=sample.species,
        charge=settings.charge,
        n_frames=sample.n_frames,
        n_ions=sample.n_ions,
        n_atoms=trajectories[0].n_atoms,
        n_runs=len(trajectories),
        volume_a3=volume,
        interval_fs=sample.paths.interval_fs,
        length_ps=sample.length_ps,
        diffusion=result,
        sigma_tracer=result.tracer.scaled(unit) if known else None,
        sigma_collective=result.collective.scaled(unit) if result.collective and known else None,
        hops=sample.estimated_hops,
        loglog_slope=sample.loglog_slope,
        curve=sample.curve,
        framework_rms_a=sample.framework_rms_a,
        drift_a=max(float(np.linalg.norm(run.drift, axis=1).max()) for run in trajectories),
        warnings=tuple(f"{temperature_k:g} K: {text}" for text in texts),
        observables=found,
        entries=entries,
    )


def _doubts(sample: Sample) -> list[str]:
    """Reasons not to trust the numbers."""
    texts = []
    window, tracer = sample.diffusion.window, sample.diffusion.tracer
    hop, hops = sample.settings.hop_length_a, sample.estimated_hops
    reach = sample.reach_ps
    reached = float(np.interp(reach, sample.curve.time_ps, sample.curve.tracer))
    if tracer.value <= 0:
        texts.append(
            f"no diffusion can be measured: the MSD does not grow; D < {tracer.high:.2g} cm²/s (95 %)"
        )
    if reached < hop**2:
        texts.append(
            f"the MSD after {reach:.3g} ps is {reached:.2g} Å², less than one hop ({hop:g} Å squared): the "
            "slope may be vibration or rattling in a cage; run longer or hotter"
        )
    if hops < FEW_HOPS:
        texts.append(
            f"about {hops:.0f} hops of {hop:g} Å in all (fewer than {FEW_HOPS:.0f}): D is an order of "
            "magnitude at best"
        )
    if sample.loglog_slope < DIFFUSIVE_SLOPE:
        texts.append(
            f"the MSD is not diffusive: log–log slope {sample.loglog_slope:.2f} up to {reach:.3g} ps (1 = "
            "diffusive); run longer"
        )
    texts += _too_fast(sample)
    if sample.diffusion.one_mean < CONTRADICTION:
        texts.append(
            f"the {len(sample.trajectories)} runs contradict each other (one D* has probability "
            f"{sample.diffusion.one_mean:.1g}): they are not samples of one state; the interval of D* is "
            "that of the scatter between runs"
        )
    texts += _curved(sample.diffusion)
    if all(run.classical for run in sample.trajectories):
        texts += thermal.doubts(sample.paths, sample.species, sample.mass_u, sample.temperature_k)
    known = [run.kinetic for run in sample.trajectories if run.kinetic is not None]
    said = [hotter_or_colder(each, sample.species, sample.temperature_k) for each in known]
    texts += [text for text in said if text]
    length = sample.longest_ps
    if length < FEW_WINDOWS * window.low_ps or length < 2.5 * window.high_ps:
        texts.append(
            f"the run is short: {length:.4g} ps against a fit window of "
            f"{window.low_ps:.3g}–{window.high_ps:.3g} ps; the error bar itself is uncertain"
        )
    moved = {name: value for name, value in sample.framework_rms_a.items() if value > MELTED_A}
    if moved:
        names = ", ".join(f"{name} {value:.1f} Å" for name, value in moved.items())
        texts.append(
            f"the framework moves ({names} rms at the end): it may have melted, decomposed or be "
            "mobile as well"
        )
    return texts


def _too_fast(sample: Sample) -> list[str]:
    """Warnings about an MSD or a D that no diffusion has."""
    tracer, texts = sample.diffusion.tracer, []
    if sample.accelerates:
        texts.append(
            f"the MSD grows faster than diffusion to the end: log–log slope {sample.loglog_slope:.2f} up to "
            f"{sample.reach_ps:.3g} ps (1 = diffusive, 2 = straight flight): D grows with the length of the "
            "run, so it is undetermined; a gas, a flow (--drift), or a run shorter than the time between "
            "collisions"
        )
    if tracer.determined and tracer.low > FASTEST_CM2_S and sample.species != "H":
        texts.append(
            f"D* is {tracer.value:.2g} cm²/s, above that of any liquid (liquid metals: 1e-5 to 3e-4): a gas, "
            "or the time between frames (time step in fs × MD steps between frames) is too short"
        )
    return texts


def _curved(result: Diffusion) -> list[str]:
    """Warning about an MSD that is not a line in its window."""
    window, late, texts = result.window, result.late, []
    if result.slow:
        known = result.tracer.determined and result.tracer.low > 0
        limit = "" if known else ": D* is undetermined but for its upper limit"
        texts.append(
            "the slope of the MSD falls to the end of the run, as beside a decay that takes as long (slow "
            f"cages, sites that exchange rarely): the intervals hold the slopes beside one{limit}; run longer"
        )
    if late is not None:
        texts.append(
            f"D depends on the lag: the slope of the MSD from {late.low_ps:.3g} to {late.high_ps:.3g} ps "
            f"gives {late.d.value:.2g} [{late.d.low:.2g}, {late.d.high:.2g}] cm²/s and differs from that of "
            "all lags by more than their joint error: the intervals hold both; run longer"
        )
    if texts:
        return texts
    if not window.linear:
        return [
            "no fit window is a line: the MSD is still curved; D* is the slope that its late lags let "
            "expect, and the intervals also hold the ordinary slope of "
            f"{window.low_ps:.3g}–{window.high_ps:.3g} ps; run longer"
        ]
    if result.curved and window.fixed:
        return [
            "the MSD is curved inside the fit window (two ways to fit differ by "
            f"{result.curvature:.1f} standard errors; the intervals span both); run longer or choose "
            "another with --fit-window"
        ]
    if result.curved:
        return [
            "the ordinary slope of the fit window lies outside the interval of the slope of all lags: the "
            "intervals hold both; run longer"
        ]
    return []
