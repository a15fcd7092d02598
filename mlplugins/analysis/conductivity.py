"""Ionic conductivity of one temperature: D, σ (tracer and collective), the Haven ratio, and what to doubt.

σ_tracer = N z² e² D* / (V k T) (Nernst–Einstein, ions that move independently); σ_collective is the same
with D_σ, the slope of the collective displacement P = Σ r: e²z²/(6 V k T) · d⟨|ΔP|²⟩/dt. H =
σ_tracer/σ_collective = D*/D_σ. Warnings on few hops follow X. He, Y. Zhu, A. Epstein, Y. Mo, npj Comput.
Mater. 4, 18 (2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.diffusion import Diffusion, diffusion
from mlplugins.analysis.msd import collective_displacement, mean_squared_displacement
from mlplugins.analysis.slopes import CONTRADICTION
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.analysis.value import Value
from mlplugins.errors import BadInput
from mlplugins.units import CM2_S_PER_A2_PS, FS_PER_PS, MS_CM_PER_S_CM, conductivity_ms_cm

if TYPE_CHECKING:
    from mlplugins.analysis.quantities import Further

Floats = NDArray[np.float64]
HOP_LENGTH_A = 3.0
FEW_HOPS = 50.0
DIFFUSIVE_SLOPE = 0.8
MELTED_A = 2.0
FEW_WINDOWS = 10.0
SAME_SPACING = 1e-6


@dataclass(frozen=True)
class AnalysisSettings:
    """What the analysis needs besides the trajectories.

    Attributes:
        charge: charge of the mobile ion, e (its sign does not matter).
        discard_ps: equilibration left out at the start of every run, ps.
        window_ps: fit window; None chooses it.
        estimator: `gls` or `ols`.
        hop_length_a: typical hop, Å, only for the count of hops and its warnings.
        carriers: charges of other mobile species, e.
        viscosity_mpa_s: of a liquid, for the finite-size correction.
        sites: fractional coordinates of sites (S, 3); None finds them.
        sampler: `closed` or `kinisi`, of the Bayesian check.
    """

    charge: float = 1.0
    discard_ps: float = 0.0
    window_ps: tuple[float, float] | None = None
    estimator: str = "gls"
    hop_length_a: float = HOP_LENGTH_A
    carriers: Mapping[str, float] = field(default_factory=dict)
    viscosity_mpa_s: float | None = None
    sites: Floats | None = None
    sampler: str = "closed"


@dataclass(frozen=True)
class Curve:
    """MSD for plots: time in ps; tracer, its axes and the collective one in Å²; local log–log slope."""

    time_ps: Floats
    tracer: Floats
    axes: Floats
    collective: Floats | None
    slope: Floats


@dataclass(frozen=True)
class RunResult:
    """Everything about one temperature."""

    temperature_k: float
    species: str
    charge: float
    n_frames: int
    n_ions: int
    n_atoms: int
    n_runs: int
    volume_a3: float
    interval_fs: float
    length_ps: float
    diffusion: Diffusion
    sigma_tracer: Value | None
    sigma_collective: Value | None
    hops: float
    loglog_slope: float
    curve: Curve
    framework_rms_a: dict[str, float]
    drift_a: float
    warnings: tuple[str, ...]
    further: Further | None = None

    def as_json(self) -> dict[str, object]:
        """One entry of `runs` of `--json`."""
        window = self.diffusion.window
        collective, haven = self.diffusion.collective, self.diffusion.haven
        return {
            "T_K": self.temperature_k,
            "n_frames": self.n_frames,
            "D_cm2_s": self.diffusion.tracer.as_json(),
            "sigma_tracer_mS_cm": self.sigma_tracer.as_json() if self.sigma_tracer else None,
            "sigma_collective_mS_cm": self.sigma_collective.as_json() if self.sigma_collective else None,
            "haven_ratio": haven.as_json() if haven else None,
            "fit_window_ps": [window.low_ps, window.high_ps],
            "fit_window_reason": window.reason,
            "D_collective_cm2_s": collective.as_json() if collective else None,
            "D_axes_cm2_s": [value.as_json() for value in self.diffusion.axes],
            "n_ions": self.n_ions,
            "n_atoms": self.n_atoms,
            "n_runs": self.n_runs,
            "volume_A3": self.volume_a3,
            "frame_interval_fs": self.interval_fs,
            "length_ps": self.length_ps,
            "time_blocks": self.diffusion.blocks,
            "estimated_hops": self.hops,
            "loglog_slope": self.loglog_slope,
            "msd_intercept_A2": self.diffusion.intercept_a2,
            "framework_rms_displacement_A": self.framework_rms_a,
            "drift_removed_A": self.drift_a,
            "sigma_tracer_S_cm": (
                self.sigma_tracer.scaled(1 / MS_CM_PER_S_CM).as_json() if self.sigma_tracer else None
            ),
            "sigma_collective_S_cm": (
                self.sigma_collective.scaled(1 / MS_CM_PER_S_CM).as_json() if self.sigma_collective else None
            ),
            **(self.further.as_json() if self.further else {}),
        }


def analyse(
    trajectories: Sequence[Trajectory], temperature_k: float, settings: AnalysisSettings
) -> RunResult:
    """Pool the runs of one temperature into D, σ and the Haven ratio with 95 % intervals.

    Raises:
        BadInput: temperature or charge that make no sense, runs of different systems or frame spacings, too
            short runs.
    """
    if not temperature_k > 0:
        raise BadInput(f"temperature {temperature_k:g} K; expected a positive number")
    if settings.charge == 0:
        raise BadInput("charge 0: a neutral species carries no current; expected e.g. --charge 1 for Li")
    paths, _, notes = pool(trajectories, settings.discard_ps)
    collective = all(run.collective for run in trajectories)
    result = diffusion(paths, settings.window_ps, settings.estimator, collective)
    first = trajectories[0]
    volume = float(
        np.average([run.volume_a3 for run in trajectories], weights=[run.n_frames for run in trajectories])
    )
    unit = conductivity_ms_cm(first.n_ions * settings.charge**2, volume, temperature_k)
    curve = msd_curve(paths, collective)
    reach = _reach_ps(curve, result, paths.longest * paths.interval_fs / FS_PER_PS)
    frames = sum(len(run) for run in paths.displacements)
    length_ps = frames * paths.interval_fs / FS_PER_PS
    travelled = 6 * result.tracer.value / CM2_S_PER_A2_PS * length_ps
    run_result = RunResult(
        temperature_k=float(temperature_k),
        species=first.species,
        charge=settings.charge,
        n_frames=frames,
        n_ions=first.n_ions,
        n_atoms=first.n_atoms,
        n_runs=len(trajectories),
        volume_a3=volume,
        interval_fs=paths.interval_fs,
        length_ps=length_ps,
        diffusion=result,
        sigma_tracer=result.tracer.scaled(unit) if np.isfinite(volume) else None,
        sigma_collective=(
            result.collective.scaled(unit) if result.collective and np.isfinite(volume) else None
        ),
        hops=first.n_ions * travelled / settings.hop_length_a**2,
        loglog_slope=_long_slope(curve, reach),
        curve=curve,
        framework_rms_a=_framework(trajectories),
        drift_a=max(float(np.linalg.norm(run.drift, axis=1).max()) for run in trajectories),
        warnings=tuple(dict.fromkeys([*notes, *(text for run in trajectories for text in run.warnings)])),
    )
    doubts = _doubts(run_result, settings, paths)
    labelled = [f"{temperature_k:g} K: {text}" for text in (*run_result.warnings, *doubts)]
    return replace(run_result, warnings=tuple(labelled))


def pool(trajectories: Sequence[Trajectory], discard_ps: float) -> tuple[Paths, list[slice], list[str]]:
    """Bring runs to one frame spacing and leave out the equilibration.

    Returns:
        The paths, the frames taken of each run, and what was done.
    """
    if not trajectories:
        raise BadInput("no run to analyse")
    first = trajectories[0]
    for run in trajectories[1:]:
        if (run.species, run.n_ions, run.n_atoms) != (first.species, first.n_ions, first.n_atoms):
            raise BadInput(
                f"runs at one temperature differ: {first.n_ions} {first.species} of {first.n_atoms} atoms, "
                f"and {run.n_ions} {run.species} of {run.n_atoms}; only runs of the same system can be "
                "pooled"
            )
    spacing = max(run.interval_fs for run in trajectories)
    notes, slices, segments = [], [], []
    for run in trajectories:
        stride = max(1, round(spacing / run.interval_fs))
        if abs(stride * run.interval_fs / spacing - 1) > SAME_SPACING:
            raise BadInput(
                f"runs at one temperature have frames every {run.interval_fs:g} and {spacing:g} fs; "
                "expected the same spacing or a multiple of it"
            )
        if stride > 1:
            notes.append(f"a run with frames every {run.interval_fs:g} fs was thinned to {spacing:g} fs")
        skip = round(discard_ps * FS_PER_PS / run.interval_fs)
        segments.append(_cut(run.segments, skip, stride))
        slices.append(slice(None, None, stride))
        if not segments[-1]:
            raise BadInput(
                f"--discard-ps {discard_ps:g} leaves nothing of a run of "
                f"{run.n_frames * run.interval_fs / FS_PER_PS:.4g} ps; discard less"
            )
    slices = [slice(parts[0][0] * each.step, None, each.step) for each, parts in zip(slices, segments)]
    kept = [run.displacements[each] for run, each in zip(trajectories, slices)]
    shifted = [tuple((a - parts[0][0], b - parts[0][0]) for a, b in parts) for parts in segments]
    return Paths(kept, shifted, spacing), slices, notes


def _cut(segments: Sequence[tuple[int, int]], skip: int, stride: int) -> tuple[tuple[int, int], ...]:
    """Segments after the first `skip` frames, in units of `stride` frames."""
    if stride > 1 and len(segments) > 1:
        segments = (
            segments[:1]
            if segments[0][1] - segments[0][0] > segments[-1][1] - segments[-1][0]
            else segments[-1:]
        )
    cut = [(-(-max(start, skip) // stride), -(-stop // stride)) for start, stop in segments]
    return tuple((start, stop) for start, stop in cut if stop - start >= 2)


def msd_curve(paths: Paths, collective: bool = True) -> Curve:
    """MSD of all runs together for all lags up to half of the longest stretch."""
    half = max(2, paths.longest // 2)
    axes = _pooled_msd(paths, paths.displacements)[1:half]
    time_ps = np.arange(1, half, dtype=np.float64) * float(paths.interval_fs / FS_PER_PS)
    charge = None
    if collective:
        summed = [collective_displacement(run) for run in paths.displacements]
        charge = _pooled_msd(paths, summed)[1:half].sum(axis=1)
    tracer: Floats = axes.sum(axis=1)
    return Curve(time_ps, tracer, axes, charge, _local_slope(time_ps, tracer))


def _pooled_msd(paths: Paths, displacements: Sequence[Floats]) -> Floats:
    longest = paths.longest
    sums, pairs = np.zeros((longest, 3)), np.zeros(longest)
    for run, parts in zip(displacements, paths.segments):
        for start, stop in parts:
            length = stop - start
            weight = (length - np.arange(length)).astype(float)
            sums[:length] += mean_squared_displacement(run[start:stop]) * weight[:, None]
            pairs[:length] += weight
    return sums / pairs[:, None]


def _local_slope(time_ps: Floats, msd: Floats) -> Floats:
    """d ln MSD / d ln t over a factor of about two in time."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(msd)
    count = len(time_ps)
    index = np.arange(count)
    ahead = np.minimum(((index + 1) * 1.4).astype(int), count - 1)
    behind = np.maximum(((index + 1) / 1.4).astype(int) - 1, 0)
    span = np.log(time_ps[ahead]) - np.log(time_ps[behind])
    with np.errstate(divide="ignore", invalid="ignore"):
        slope: Floats = (logs[ahead] - logs[behind]) / span
    return slope


def _reach_ps(curve: Curve, result: Diffusion, longest_ps: float) -> float:
    """Longest lag that is well sampled: a fifth of the longest stretch, or the end of the fit window."""
    return min(max(longest_ps / 5, result.window.high_ps), float(curve.time_ps[-1]))


def _long_slope(curve: Curve, reach_ps: float) -> float:
    """d ln MSD / d ln t over the last factor of four in lag; at short lags vibrations hide the diffusion."""
    inside = (curve.time_ps >= reach_ps / 4) & (curve.time_ps <= reach_ps * 1.001) & (curve.tracer > 0)
    if inside.sum() < 2:
        return float("nan")
    points = np.unique(np.geomspace(1, inside.sum(), 20).astype(int)) - 1  # even in ln t
    time, msd = curve.time_ps[inside][points], curve.tracer[inside][points]
    return float(np.polyfit(np.log(time), np.log(msd), 1)[0])


def _framework(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    names = trajectories[0].framework_rms
    return {name: max(float(run.framework_rms[name][-1]) for run in trajectories) for name in names}


def _doubts(run: RunResult, settings: AnalysisSettings, paths: Paths) -> list[str]:
    """Reasons not to trust the numbers."""
    texts = []
    window, tracer = run.diffusion.window, run.diffusion.tracer
    hop = settings.hop_length_a
    reach = _reach_ps(run.curve, run.diffusion, paths.longest * paths.interval_fs / FS_PER_PS)
    reached = float(np.interp(reach, run.curve.time_ps, run.curve.tracer))
    if tracer.value <= 0:
        texts.append(
            f"no diffusion can be measured: the MSD does not grow; D < {tracer.high:.2g} cm²/s (95 %)"
        )
    if reached < hop**2:
        texts.append(
            f"the MSD after {reach:.3g} ps is {reached:.2g} Å², less than one hop ({hop:g} Å squared): the "
            "slope may be vibration or rattling in a cage; run longer or hotter"
        )
    if run.hops < FEW_HOPS:
        texts.append(
            f"about {run.hops:.0f} hops of {hop:g} Å in all (fewer than {FEW_HOPS:.0f}): D is an order of "
            "magnitude at best"
        )
    if run.loglog_slope < DIFFUSIVE_SLOPE:
        texts.append(
            f"the MSD is not diffusive: log–log slope {run.loglog_slope:.2f} up to {reach:.3g} ps (1 = "
            "diffusive); run longer"
        )
    if run.diffusion.one_mean < CONTRADICTION:
        texts.append(
            f"the {run.n_runs} runs contradict each other (one D* has probability "
            f"{run.diffusion.one_mean:.1g}): they are not samples of one state; the interval of D* is that "
            "of the scatter between runs"
        )
    texts += _curved(run.diffusion)
    length = paths.longest * paths.interval_fs / FS_PER_PS
    if length < FEW_WINDOWS * window.low_ps or length < 2.5 * window.high_ps:
        texts.append(
            f"the run is short: {length:.4g} ps against a fit window of "
            f"{window.low_ps:.3g}–{window.high_ps:.3g} ps; the error bar itself is uncertain"
        )
    moved = {name: value for name, value in run.framework_rms_a.items() if value > MELTED_A}
    if moved:
        names = ", ".join(f"{name} {value:.1f} Å" for name, value in moved.items())
        texts.append(
            f"the framework moves ({names} rms at the end): it may have melted, decomposed or be "
            "mobile as well"
        )
    return texts


def _curved(result: Diffusion) -> list[str]:
    """What to say of an MSD that is no line in its window."""
    window, late = result.window, result.late
    if late is not None:
        return [
            f"D depends on the lag: the slope of the MSD from {late.low_ps:.3g} to {late.high_ps:.3g} ps "
            f"gives {late.d.value:.2g} [{late.d.low:.2g}, {late.d.high:.2g}] cm²/s and differs from that of "
            "all lags by more than their joint error: the intervals hold both; run longer"
        ]
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
