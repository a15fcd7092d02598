"""One temperature as analysed: pooled runs with their fit, from which every result is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from mlplugins.analysis.blocks import Paths, collective_paths
from mlplugins.analysis.choices import HOP_LENGTH_A
from mlplugins.analysis.current import CurrentSource
from mlplugins.analysis.diffusion import Diffusion, diffusion
from mlplugins.analysis.msd import collective_displacement, mean_squared_displacement
from mlplugins.analysis.pooling import pool
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.analysis.value import UNKNOWN, Value
from mlplugins.analysis.vibrations import Vibrations, vibrations
from mlplugins.analysis.visits import Visits, visits
from mlplugins.analysis.watched import Watched
from mlplugins.errors import BadInput
from mlplugins.units import CM2_S_PER_A2_PS, FS_PER_PS

Floats = NDArray[np.float64]
STRAIGHT, STRAIGHT_ERROR = 1.3, 0.6
"""Log–log slope of an MSD that is not that of diffusion any more, and what its noise may add for one ion."""
MELTED_A = 2.0
"""Root-mean-square displacement of a framework that no longer stands still."""


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
        site_names: a name for each of them, which kinds of jumps are told apart by; empty for none.
        sampler: `closed` or `kinisi`, of the Bayesian check.
        current: where the Green–Kubo check reads the charge current; None leaves it out.
        watched: uncertainty along every run, None of runs without; empty: of none.
    """

    charge: float = 1.0
    discard_ps: float = 0.0
    window_ps: tuple[float, float] | None = None
    estimator: str = "gls"
    hop_length_a: float = HOP_LENGTH_A
    carriers: Mapping[str, float] = field(default_factory=dict)
    viscosity_mpa_s: float | None = None
    sites: Floats | None = None
    site_names: tuple[str, ...] = ()
    sampler: str = "closed"
    current: CurrentSource | None = None
    watched: Sequence[Watched | None] = ()


@dataclass(frozen=True)
class Curve:
    """MSD for plots: time in ps; tracer, its axes and the collective one in Å²; local log–log slope."""

    time_ps: Floats
    tracer: Floats
    axes: Floats
    collective: Floats | None
    slope: Floats


@dataclass(frozen=True)
class Sample:
    """Runs of one temperature, pooled and fitted.

    Attributes:
        trajectories: the runs as they were read.
        paths: their displacements at one frame spacing, without the equilibration.
        slices: frames of each run that `paths` holds; for `Trajectory.others` and the like.
        diffusion: D*, D_σ and the fit behind them.
        curve: MSD for all lags up to half of the longest stretch.
        notes: what was done to pool the runs.
    """

    trajectories: Sequence[Trajectory]
    temperature_k: float
    settings: AnalysisSettings
    paths: Paths
    slices: Sequence[slice]
    diffusion: Diffusion
    curve: Curve
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, trajectories: Sequence[Trajectory], temperature_k: float, settings: AnalysisSettings
    ) -> Sample:
        """Pool and fit.

        Raises:
            BadInput: temperature or charge that make no sense, runs of different systems or frame spacings,
                too short runs.
        """
        if not temperature_k > 0:
            raise BadInput(f"temperature {temperature_k:g} K; expected a positive number")
        if settings.charge == 0:
            raise BadInput("charge 0: a neutral species carries no current; expected e.g. --charge 1 for Li")
        paths, slices, notes = pool(trajectories, settings.discard_ps)
        collective = all(run.collective for run in trajectories)
        sample = cls(
            trajectories,
            float(temperature_k),
            settings,
            paths,
            slices,
            diffusion(paths, settings.window_ps, settings.estimator, collective),
            msd_curve(paths, collective),
            tuple(notes),
        )
        return replace(sample, diffusion=unlimited(sample.diffusion)) if sample.accelerates else sample

    @property
    def species(self) -> str:
        """Element of the mobile ions."""
        return self.trajectories[0].species

    @property
    def mass_u(self) -> float:
        """Of the mobile ions: that of the files, or the standard one."""
        given = self.trajectories[0].mass_u
        return float(atomic_masses[atomic_numbers[self.species]]) if given is None else given

    @property
    def n_ions(self) -> int:
        """Number of mobile ions."""
        return self.trajectories[0].n_ions

    @property
    def volume_a3(self) -> float:
        """Mean volume of the material, Å³; NaN where it is not known."""
        volumes = [run.volume_a3 for run in self.trajectories]
        return float(np.average(volumes, weights=[run.n_frames for run in self.trajectories]))

    @property
    def n_frames(self) -> int:
        """Frames of all runs together."""
        return sum(len(run) for run in self.paths.displacements)

    @property
    def length_ps(self) -> float:
        """Length of all runs together, ps."""
        return self.n_frames * self.paths.interval_fs / FS_PER_PS

    @property
    def longest_ps(self) -> float:
        """Length of the longest stretch without a gap, ps."""
        return self.paths.longest * self.paths.interval_fs / FS_PER_PS

    @cached_property
    def collective(self) -> Paths | None:
        """Paths of Σ r / √N; None where D_σ is not defined."""
        return collective_paths(self.paths) if self.diffusion.collective is not None else None

    @cached_property
    def visits(self) -> Visits:
        """From which site to which the ions went, and when."""
        return visits(self.trajectories, self.slices, self.paths, self.settings.sites)

    @cached_property
    def vibrations(self) -> Vibrations:
        """How far and how fast the ions vibrate about their sites."""
        return vibrations(self.paths, self.visits, self.mass_u, self.temperature_k)

    @property
    def estimated_hops(self) -> float:
        """Hops of all ions together, if D* came from hops of the length in the settings."""
        travelled = 6 * self.diffusion.tracer.value / CM2_S_PER_A2_PS * self.length_ps
        return self.n_ions * travelled / self.settings.hop_length_a**2

    @property
    def reach_ps(self) -> float:
        """Longest lag that is well sampled: a fifth of the longest stretch, or the end of the fit window."""
        reach = max(self.longest_ps / 5, self.diffusion.window.high_ps)
        return min(reach, float(self.curve.time_ps[-1]))

    @cached_property
    def loglog_slope(self) -> float:
        """d ln MSD / d ln t over the last factor of four in lag; at short lags vibrations hide the diffusion.

        NaN where nobody moves.
        """
        curve, reach = self.curve, self.reach_ps
        inside = (curve.time_ps >= reach / 4) & (curve.time_ps <= reach * 1.001) & (curve.tracer > 0)
        if inside.sum() < 2:
            return float("nan")
        points = np.unique(np.geomspace(1, inside.sum(), 20).astype(int)) - 1  # even in ln t
        time, msd = curve.time_ps[inside][points], curve.tracer[inside][points]
        return float(np.polyfit(np.log(time), np.log(msd), 1)[0])

    @property
    def accelerates(self) -> bool:
        """Whether the MSD still grows faster than diffusion at the longest lags that are well sampled."""
        walkers = self.n_ions * len(self.trajectories)
        return self.loglog_slope > STRAIGHT + STRAIGHT_ERROR / np.sqrt(walkers)

    @property
    def framework_rms_a(self) -> dict[str, float]:
        """Root-mean-square displacement of each other element at the end of the runs, Å."""
        runs = self.trajectories
        return {
            name: max(float(run.framework_rms[name][-1]) for run in runs) for name in runs[0].framework_rms
        }


def unlimited(found: Diffusion) -> Diffusion:
    """The same without limits: no value is one of a diffusion coefficient."""

    def unknown(value: Value) -> Value:
        return replace(value, low=0.0, high=float("inf"), relative_error=float("inf"), limit=UNKNOWN)

    x, y, z = found.axes
    return replace(
        found,
        tracer=unknown(found.tracer),
        collective=None if found.collective is None else unknown(found.collective),
        haven=None,
        axes=(unknown(x), unknown(y), unknown(z)),
    )


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
