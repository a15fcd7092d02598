"""Figures of the conductivity report: MSD with its fits, Arrhenius plot with the prediction band."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mlplugins.analysis.arrhenius import ROOM_K, ArrheniusResult
from mlplugins.analysis.conductivity import RunResult
from mlplugins.units import CM2_S_PER_A2_PS

DPI = 200
MAX_POINTS = 2000
INK = "#222222"
ACCENT = "#0b5c8a"


def msd_figure(runs: Sequence[RunResult]) -> bytes:
    """PNG: tracer MSD with fitted lines (left), tracer and collective MSD on logarithmic axes (right)."""
    figure = Figure(figsize=(10.0, 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for run, color in zip(runs, _colors(len(runs))):
        _msd_lines(left, right, run, color)
    last = max(run.diffusion.window.high_ps for run in runs)
    limit = min(2.0 * last, max(float(run.curve.time_ps[-1]) for run in runs))
    top = max(float(run.curve.tracer[run.curve.time_ps <= limit].max()) for run in runs)
    left.set(xlim=(0, limit), ylim=(0, 1.08 * top), xlabel="lag time (ps)", ylabel="MSD (Å²)")
    left.legend(frameon=False, loc="upper left", title="line: fit in its window")
    left.set_title(f"{runs[0].species} tracer", loc="left")
    right.set(xscale="log", yscale="log", xlabel="lag time (ps)", ylabel="MSD (Å²)")
    _slope_guide(right, runs)
    dashed = any(run.curve.collective is not None for run in runs)
    right.set_title("tracer (solid), collective (dashed)" if dashed else "tracer", loc="left")
    for axes in (left, right):
        _finish(axes)
    return _png(figure)


def _msd_lines(left: Any, right: Any, run: RunResult, color: Any) -> None:
    every = max(1, len(run.curve.time_ps) // MAX_POINTS)
    time, tracer = run.curve.time_ps[::every], run.curve.tracer[::every]
    left.plot(time, tracer, color=color, lw=3.2, alpha=0.35, solid_capstyle="round")
    window, result = run.diffusion.window, run.diffusion
    ends = np.array([window.low_ps, window.high_ps])
    slope = 6 * result.tracer.value / CM2_S_PER_A2_PS
    left.plot(ends, result.intercept_a2 + slope * ends, color=color, lw=1.6, label=f"{run.temperature_k:g} K")
    left.plot(ends, result.intercept_a2 + slope * ends, "|", color=color, ms=9, mew=1.6)
    right.plot(time, tracer, color=color, lw=1.7)
    if run.curve.collective is not None:
        shown = run.curve.time_ps <= max(2.0 * window.high_ps, float(run.curve.time_ps[-1]) / 3)
        right.plot(run.curve.time_ps[shown], run.curve.collective[shown], color=color, lw=1.2, ls=(0, (4, 2)))


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


def arrhenius_figure(runs: Sequence[RunResult], result: ArrheniusResult) -> bytes:
    """PNG: D against 1000/T with error bars, the weighted line, its 95 % prediction band and the "
    "value at 300 K."""
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
    top.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    top.set_xlabel("T (K)")
    axes.legend(frameon=False, loc="lower left")
    _finish(axes, keep_top=True)
    return _png(figure)


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
        axes.yaxis.set_minor_formatter(NullFormatter())


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
