"""MSD with its error bands: the main figure, and whether the collective displacement is significant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.blocks import msd_band
from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.value import UNDETERMINED
from mlplugins.units import CM2_S_PER_A2_PS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Band = tuple[Floats, Floats, Floats]
"""Lags (ps), MSD and its standard error (Å²)."""
MAX_POINTS = 2000
LONG_LEGEND = 6
"""Temperatures from which on the legend has two columns."""


@dataclass(frozen=True)
class Bands:
    """MSD with its error at some lags; collective is None where it is not defined."""

    tracer: Band
    collective: Band | None


class MeanSquaredDisplacement(Observable[Bands]):
    """The bands and the figure of the MSD."""

    order = 20

    def compute(self, sample: Sample, notes: list[str]) -> Bands:
        """Errors by blocks of time and ions."""
        charge = sample.collective
        return Bands(msd_band(sample.paths), msd_band(charge) if charge else None)

    def doubts(self, found: Bands | None, sample: Sample) -> list[str]:
        """Where the collective displacement does not determine σ collective and the Haven ratio."""
        collective, haven = sample.diffusion.collective, sample.diffusion.haven
        if collective is None or sample.diffusion.tracer.value <= 0 or (haven and haven.determined):
            return []
        known = haven is not None and haven.low > 0 and haven.high < UNDETERMINED * haven.low
        span = f"spans a factor of {haven.high / haven.low:.2g}" if haven and known else "is unbounded"
        return [
            "the collective displacement of this trajectory does not determine σ collective and the Haven "
            f"ratio (the 95 % interval of H {span}): do not quote "
            "them; run longer or with more seeds"
        ]

    def figures(self, found: Sequence[tuple[RunResult, Bands]]) -> dict[str, Figure]:
        """Tracer MSD with fitted lines and residuals, tracer and collective MSD on logarithmic axes."""
        return {"msd": _figure(found)}


def _figure(found: Sequence[tuple[RunResult, Bands]]) -> Figure:
    """Tracer MSD with fitted lines and the residuals (left), tracer and collective MSD on logarithmic axes
    (right)."""
    from mlplugins import plotting

    runs = [run for run, _ in found]
    dashed = any(run.curve.collective is not None for run in runs)
    caption = (
        f"Mean squared displacement of {runs[0].species}. (a) Tracer MSD (broad) with its 95 % band, the "
        "line fitted between the ticks (thin) and, below, the deviation from it. (b) Tracer (solid)"
        f"{' and collective (dashed; ticks: its fit) MSD' if dashed else ' MSD'} on logarithmic axes."
    )
    figure = plotting.canvas(plotting.PAGE, 3.6, caption)
    parts = figure.subplot_mosaic([["msd", "log"], ["rest", "log"]], height_ratios=(3.2, 1.0))
    left, rest, right = parts["msd"], parts["rest"], parts["log"]
    for (run, bands), color in zip(found, plotting.colors(len(found))):
        _msd_lines((left, right), run, bands, color)
        _residuals(rest, run, color)
    last = max(run.diffusion.window.high_ps for run in runs)
    limit = min(2.0 * last, max(float(run.curve.time_ps[-1]) for run in runs))
    top = max(float(run.curve.tracer[run.curve.time_ps <= limit].max()) for run in runs)
    left.set(xlim=(0, limit), ylim=(0, 1.08 * top), ylabel="MSD (Å²)")
    left.tick_params(labelbottom=False)
    reach = max(10.0, 1.1 * max(abs(bound) for bound in rest.get_ylim()))
    rest.set(xlim=(0, limit), ylim=(-reach, reach), xlabel="lag time (ps)", ylabel="MSD − line (%)")
    left.legend(loc="upper left", ncols=1 + (len(runs) > LONG_LEGEND))
    right.set(xscale="log", yscale="log", xlabel="lag time (ps)", ylabel="MSD (Å²)")
    _slope_guide(right, runs)
    plotting.letters([left, right])
    for axes in (left, rest, right):
        plotting.finish(axes)
    return figure


def _residuals(axes: Any, run: RunResult, color: Any) -> None:
    """MSD less the line, in percent of the MSD, inside the window."""
    from mlplugins import plotting

    window, result = run.diffusion.window, run.diffusion
    time, tracer = run.curve.time_ps, run.curve.tracer
    inside = (time >= window.low_ps * (1 - 1e-9)) & (time <= window.high_ps * (1 + 1e-9)) & (tracer > 0)
    every = max(1, int(inside.sum()) // MAX_POINTS)
    time, tracer = time[inside][::every], tracer[inside][::every]
    line = result.intercept_a2 + 6 * result.tracer.value / CM2_S_PER_A2_PS * time
    axes.axhline(0.0, color=plotting.GREY, lw=0.8)
    axes.plot(time, 100 * (1 - line / tracer), color=color)


def _msd_lines(panels: tuple[Any, Any], run: RunResult, bands: Bands, color: Any) -> None:
    left, right = panels
    every = max(1, len(run.curve.time_ps) // MAX_POINTS)
    time, tracer = run.curve.time_ps[::every], run.curve.tracer[::every]
    left.plot(time, tracer, color=color, lw=2.6, alpha=0.35, solid_capstyle="round")
    lag, middle, error = bands.tracer
    left.fill_between(lag, middle - 1.96 * error, middle + 1.96 * error, color=color, alpha=0.12, lw=0)
    window, result = run.diffusion.window, run.diffusion
    ends = np.array([window.low_ps, window.high_ps])
    slope = 6 * result.tracer.value / CM2_S_PER_A2_PS
    left.plot(ends, result.intercept_a2 + slope * ends, color=color, lw=1.0, label=f"{run.temperature_k:g} K")
    left.plot(ends, result.intercept_a2 + slope * ends, "|", color=color, ms=7, mew=1.2)
    right.plot(time, tracer, color=color)
    if run.curve.collective is not None:
        _collective_lines(right, run, bands, color)


def _collective_lines(axes: Any, run: RunResult, bands: Bands, color: Any) -> None:
    """Collective MSD with its band and the ends of the line fitted in the window."""
    window, result = run.diffusion.window, run.diffusion
    last = max(2.0 * window.high_ps, float(run.curve.time_ps[-1]) / 3)
    shown = run.curve.time_ps <= last
    collective = run.curve.collective
    if collective is None:
        return
    axes.plot(run.curve.time_ps[shown], collective[shown], color=color, lw=1.0, ls=(0, (4, 2)))
    if bands.collective is not None:
        lag, middle, error = bands.collective
        inside = lag <= last
        low = np.maximum(middle - 1.96 * error, 0.1 * middle)
        axes.fill_between(
            lag[inside], low[inside], (middle + 1.96 * error)[inside], color=color, alpha=0.12, lw=0
        )
    if result.collective is not None and result.collective_intercept_a2 is not None:
        ends = np.array([window.low_ps, window.high_ps])
        fitted = result.collective_intercept_a2 + 6 * result.collective.value / CM2_S_PER_A2_PS * ends
        if (fitted > 0).all():
            axes.plot(ends, fitted, "|", color=color, ms=7, mew=1.2)


def _slope_guide(axes: Any, runs: Sequence[RunResult]) -> None:
    """A short line of slope 1, below the data."""
    from mlplugins import plotting

    curve = runs[0].curve
    end = float(curve.time_ps[-1])
    times = np.array([end / 6, end / 1.5])
    inside = (curve.time_ps >= times[0]) & (curve.time_ps <= times[1])
    if not inside.any():
        return
    lowest = min(float(np.interp(times[0], run.curve.time_ps, run.curve.tracer)) for run in runs)
    axes.plot(times, 0.35 * lowest * times / times[0], color=plotting.GREY, lw=1.0)
    axes.annotate(
        "slope 1",
        (times[0], 0.35 * lowest),
        xytext=(-4, -1),
        textcoords="offset points",
        ha="right",
        va="center",
        color=plotting.GREY,
        fontsize=7,
    )


OBSERVABLE = MeanSquaredDisplacement()
