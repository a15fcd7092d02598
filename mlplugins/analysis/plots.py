"""Figures of the conductivity report: MSD with its fits, Arrhenius plot with the prediction band."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator

from mlplugins.analysis.arrhenius import ROOM_K, ArrheniusResult
from mlplugins.analysis.conductivity import RunResult
from mlplugins.analysis.value import Value
from mlplugins.units import CM2_S_PER_A2_PS

DPI = 200
MAX_POINTS = 2000
TICK_SHARE = 0.055
"""Of the width of the Arrhenius plot: the room that the label of a temperature needs."""
INK = "#222222"
ACCENT = "#0b5c8a"


def msd_figure(runs: Sequence[RunResult]) -> Figure:
    """Tracer MSD with fitted lines and the residuals (left), tracer and collective MSD on logarithmic axes
    (right)."""
    figure = Figure(figsize=(10.0, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subplot_mosaic([["msd", "log"], ["rest", "log"]], height_ratios=(3.2, 1.0))
    left, rest, right = parts["msd"], parts["rest"], parts["log"]
    for run, color in zip(runs, _colors(len(runs))):
        _msd_lines(left, right, run, color)
        _residuals(rest, run, color)
    last = max(run.diffusion.window.high_ps for run in runs)
    limit = min(2.0 * last, max(float(run.curve.time_ps[-1]) for run in runs))
    top = max(float(run.curve.tracer[run.curve.time_ps <= limit].max()) for run in runs)
    left.set(xlim=(0, limit), ylim=(0, 1.08 * top), ylabel="MSD (Å²)")
    left.tick_params(labelbottom=False)
    reach = max(10.0, 1.1 * max(abs(bound) for bound in rest.get_ylim()))
    rest.set(xlim=(0, limit), ylim=(-reach, reach), xlabel="lag time (ps)", ylabel="MSD − line (%)")
    left.legend(frameon=False, loc="upper left", title="line: fit in its window; band: 95 %")
    left.set_title(f"{runs[0].species} tracer", loc="left")
    right.set(xscale="log", yscale="log", xlabel="lag time (ps)", ylabel="MSD (Å²)")
    _slope_guide(right, runs)
    dashed = any(run.curve.collective is not None for run in runs)
    title = "tracer (solid), collective (dashed; ticks: its fit)" if dashed else "tracer"
    right.set_title(title, loc="left")
    for axes in (left, rest, right):
        _finish(axes)
    return figure


def _residuals(axes: Any, run: RunResult, color: Any) -> None:
    """MSD less the line, in percent of the MSD, inside the window."""
    window, result = run.diffusion.window, run.diffusion
    time, tracer = run.curve.time_ps, run.curve.tracer
    inside = (time >= window.low_ps * (1 - 1e-9)) & (time <= window.high_ps * (1 + 1e-9)) & (tracer > 0)
    every = max(1, int(inside.sum()) // MAX_POINTS)
    time, tracer = time[inside][::every], tracer[inside][::every]
    line = result.intercept_a2 + 6 * result.tracer.value / CM2_S_PER_A2_PS * time
    axes.axhline(0.0, color="#777777", lw=0.8)
    axes.plot(time, 100 * (1 - line / tracer), color=color, lw=1.4)


def _msd_lines(left: Any, right: Any, run: RunResult, color: Any) -> None:
    every = max(1, len(run.curve.time_ps) // MAX_POINTS)
    time, tracer = run.curve.time_ps[::every], run.curve.tracer[::every]
    left.plot(time, tracer, color=color, lw=3.2, alpha=0.35, solid_capstyle="round")
    if run.further is not None:
        lag, middle, error = run.further.band
        left.fill_between(lag, middle - 1.96 * error, middle + 1.96 * error, color=color, alpha=0.12, lw=0)
    window, result = run.diffusion.window, run.diffusion
    ends = np.array([window.low_ps, window.high_ps])
    slope = 6 * result.tracer.value / CM2_S_PER_A2_PS
    left.plot(ends, result.intercept_a2 + slope * ends, color=color, lw=1.6, label=f"{run.temperature_k:g} K")
    left.plot(ends, result.intercept_a2 + slope * ends, "|", color=color, ms=9, mew=1.6)
    right.plot(time, tracer, color=color, lw=1.7)
    if run.curve.collective is not None:
        _collective_lines(right, run, color)


def _collective_lines(axes: Any, run: RunResult, color: Any) -> None:
    """Collective MSD with its band and the ends of the line fitted in the window."""
    window, result = run.diffusion.window, run.diffusion
    last = max(2.0 * window.high_ps, float(run.curve.time_ps[-1]) / 3)
    shown = run.curve.time_ps <= last
    collective = run.curve.collective
    if collective is None:
        return
    axes.plot(run.curve.time_ps[shown], collective[shown], color=color, lw=1.2, ls=(0, (4, 2)))
    if run.further is not None and run.further.collective_band is not None:
        lag, middle, error = run.further.collective_band
        inside = lag <= last
        low = np.maximum(middle - 1.96 * error, 0.1 * middle)
        axes.fill_between(
            lag[inside], low[inside], (middle + 1.96 * error)[inside], color=color, alpha=0.12, lw=0
        )
    if result.collective is not None and result.collective_intercept_a2 is not None:
        ends = np.array([window.low_ps, window.high_ps])
        fitted = result.collective_intercept_a2 + 6 * result.collective.value / CM2_S_PER_A2_PS * ends
        if (fitted > 0).all():
            axes.plot(ends, fitted, "|", color=color, ms=9, mew=1.6)


def _slope_guide(axes: Any, runs: Sequence[RunResult]) -> None:
    """A short line of slope 1, below the data."""
    curve = runs[0].curve
    end = float(curve.time_ps[-1])
    times = np.array([end / 6, end / 1.5])
    inside = (curve.time_ps >= times[0]) & (curve.time_ps <= times[1])
    if not inside.any():
        return
    lowest = min(float(np.interp(times[0], run.curve.time_ps, run.curve.tracer)) for run in runs)
    axes.plot(times, 0.35 * lowest * times / times[0], color="#777777", lw=1.0)
    axes.annotate(
        "slope 1",
        (times[0], 0.35 * lowest),
        xytext=(-4, -1),
        textcoords="offset points",
        ha="right",
        va="center",
        color="#777777",
        fontsize=8,
    )


def arrhenius_figure(runs: Sequence[RunResult], result: ArrheniusResult) -> Figure:
    """D against 1000/T with error bars, the weighted line, its 95 % prediction band, the value at 300 K, and
    other laws where they are significant."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    temperatures = np.array([run.temperature_k for run in runs])
    inverse = np.linspace(
        min(1 / temperatures.max(), 1 / ROOM_K) * 0.97, max(1 / temperatures.min(), 1 / ROOM_K) * 1.02, 300
    )
    middle, low, high = result.law.predict(1 / inverse)
    axes.fill_between(1000 * inverse, low, high, color=ACCENT, alpha=0.13, lw=0, label="95 % prediction band")
    inside = (inverse >= 0.999 / temperatures.max()) & (inverse <= 1.001 / temperatures.min())
    axes.plot(1000 * inverse, middle, color=ACCENT, lw=1.2, ls=(0, (4, 2)))
    axes.plot(1000 * inverse[inside], middle[inside], color=ACCENT, lw=1.8, label=_law_label(result))
    _other_laws(axes, result, 1 / inverse)
    for run in runs:
        tracer = run.diffusion.tracer
        if tracer.value > 0:
            error = [[tracer.value - tracer.low], [tracer.high - tracer.value]]
            axes.errorbar(
                1000 / run.temperature_k, tracer.value, error, fmt="o", color=INK, ms=5, capsize=3, lw=1.2
            )
    room = result.room_d
    axes.errorbar(
        1000 / ROOM_K,
        room.value,
        [[room.value - room.low], [room.high - room.value]],
        fmt="s",
        mfc="white",
        color=ACCENT,
        ms=6,
        capsize=3,
        lw=1.2,
        label=f"300 K, extrapolated: {room.value:.1e} cm²/s",
    )
    axes.set(yscale="log", xlabel="1000/T (K⁻¹)", ylabel=f"D({runs[0].species}) (cm²/s)")
    axes.set_xlim(1000 * inverse[0], 1000 * inverse[-1])
    top = axes.secondary_xaxis("top", functions=(_swap, _swap))
    ticks = sorted({*temperatures.tolist(), ROOM_K})
    top.set_xticks(ticks, _apart(ticks, TICK_SHARE * float(inverse[-1] - inverse[0])))
    top.set_xlabel("T (K)")
    axes.legend(frameon=False, loc="lower left")
    _finish(axes, keep_top=True)
    return figure


def _apart(temperatures: Sequence[float], least: float) -> list[str]:
    """Labels of rising temperatures on an axis of 1/T; those nearer than `least` to a colder one are empty.

    >>> _apart([300.0, 900.0, 1000.0], 2e-4)
    ['300', '900', '']
    """
    labels: list[str] = []
    last = np.inf
    for temperature in temperatures:
        free = last - 1 / temperature >= least
        labels.append(f"{temperature:g}" if free else "")
        last = 1 / temperature if free else last
    return labels


def _other_laws(axes: Any, result: ArrheniusResult, temperatures: Any) -> None:
    """Two regimes and VFT where they beat the line."""
    if result.vft is not None and result.vft.significant:
        values = [result.vft.at(float(t)).value for t in temperatures]
        axes.plot(
            1000 / temperatures, values, color="#b5482a", lw=1.3, label=f"VFT, T0 = {result.vft.t0_k:.0f} K"
        )
    regimes = result.regimes
    if regimes is not None and regimes.significant:
        axes.axvline(1000 / regimes.break_k, color="#5b7f3a", lw=1.0, ls=":")
        label = f"two regimes: {regimes.cold_ev.value:.3f} | {regimes.hot_ev.value:.3f} eV"
        axes.plot(1000 / ROOM_K, regimes.room.value, "D", mfc="white", color="#5b7f3a", ms=6, label=label)


def _law_label(result: ArrheniusResult) -> str:
    energy = result.activation_ev
    return f"Ea = {energy.value:.3f} eV [{energy.low:.3f}, {energy.high:.3f}]"


def _swap(values: Any) -> Any:
    """1000/T ↔ T; the axis asks for zero too."""
    values = np.asarray(values, dtype=float)
    return 1000.0 / np.where(values == 0, np.finfo(float).tiny ** 0.5, values)


def _colors(count: int) -> list[Any]:
    """Cold to hot, without the pale end of the map."""
    return [colormaps["plasma"](value) for value in np.linspace(0.05, 0.78, max(count, 2))][:count]


def _finish(axes: Any, keep_top: bool = False) -> None:
    axes.spines["right"].set_visible(False)
    axes.spines["top"].set_visible(keep_top)
    axes.grid(True, color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(numticks=12))
        # less than a decade may hold no power of ten
        axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1.0, 0.6)))


def convergence_figure(runs: Sequence[RunResult]) -> Figure | None:
    """D* and D_σ against the length of the trajectory; None without further results."""
    shown = [run for run in runs if run.further is not None and len(run.further.convergence.tracer) > 1]
    if not shown:
        return None
    figure = Figure(figsize=(10.0, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharex=True)
    for run, color in zip(shown, _colors(len(shown))):
        path = run.further.convergence if run.further else None
        if path is None:
            continue
        _converging(left, path.lengths_ps, path.tracer, color, f"{run.temperature_k:g} K")
        _converging(right, path.lengths_ps, path.collective, color, "")
    left.set(xlabel="length used (ps)", ylabel="D* (cm²/s)", yscale="log")
    right.set(xlabel="length used (ps)", ylabel="collective D (cm²/s)", yscale="log")
    for axes in (left, right):
        _finish(axes)
    figure.legend(frameon=False, loc="outside right upper")
    return figure


def _converging(
    axes: Any, lengths: Sequence[float], values: Sequence[Value | None], color: Any, label: str
) -> None:
    known = [(x, value) for x, value in zip(lengths, values) if value is not None and value.value > 0]
    if not known:
        return
    x = np.array([point for point, _ in known])
    middle, low, high = (
        np.array([getattr(value, name) for _, value in known]) for name in ("value", "low", "high")
    )
    axes.fill_between(
        x, np.maximum(low, 0.05 * middle), np.minimum(high, 20 * middle), color=color, alpha=0.15, lw=0
    )
    axes.plot(x, middle, "o-", color=color, ms=4, lw=1.4, label=label or None)


def motion_figure(run: RunResult) -> Figure | None:
    """Van Hove functions and hop lengths of one temperature; None where they are not known."""
    found = run.further.van_hove if run.further else None
    if found is None:
        return None
    hops = run.further.hops if run.further else None
    figure = Figure(figsize=(12.0, 3.7), layout="constrained")
    FigureCanvasAgg(figure)
    own, other, lengths = figure.subplots(1, 3)
    for row, (lag, color) in enumerate(zip(found.lags_ps, _colors(len(found.lags_ps)))):
        own.plot(found.radius_a, found.self_part[row], color=color, lw=1.5, label=f"{lag:.3g} ps")
        if len(found.distinct_part):
            other.plot(found.radius_a, found.distinct_part[row], color=color, lw=1.5)
    own.set(
        xlabel="r (Å)",
        ylabel=r"$4\pi r^2 G_s$ (Å⁻¹)",
        title=f"van Hove, self, {run.temperature_k:g} K",
        xlim=(0, None),
        ylim=(0, None),
    )
    other.set(
        xlabel="r (Å)", ylabel=r"$G_d/\rho$", title="van Hove, distinct", xlim=(0, None), ylim=(0, None)
    )
    own.legend(frameon=False)
    if hops is not None and hops.count:
        lengths.hist(hops.lengths, bins=40, color=ACCENT, alpha=0.8)
    lengths.set(
        xlabel="hop length (Å)", ylabel="hops", title=f"{hops.count if hops else 0} hops between sites"
    )
    for axes in (own, other, lengths):
        axes.title.set_fontsize(10)
        _finish(axes)
    return figure


def rendered(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a file (`png`, `pdf`, `svg`); without dates, so that equal results give equal files."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
