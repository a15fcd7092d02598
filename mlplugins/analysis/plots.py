"""Figures of the conductivity report: shared functions, and the Arrhenius plot with its prediction band."""

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
from mlplugins.analysis.result import RunResult

DPI = 200
TICK_SHARE = 0.055
"""Of the width of the Arrhenius plot: the room that the label of a temperature needs."""
INK = "#222222"
ACCENT = "#0b5c8a"


def canvas(width: float, height: float) -> Figure:
    """An empty figure in inches that can be written to a file."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def arrhenius_figure(runs: Sequence[RunResult], result: ArrheniusResult) -> Figure:
    """D against 1000/T with error bars, the weighted line, its 95 % prediction band, the value at 300 K, and
    other laws where they are significant."""
    figure = canvas(6.4, 4.8)
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
    finish(axes, keep_top=True)
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


def colors(count: int) -> list[Any]:
    """Cold to hot, without the pale end of the map."""
    return [colormaps["plasma"](value) for value in np.linspace(0.05, 0.78, max(count, 2))][:count]


def finish(axes: Any, keep_top: bool = False) -> None:
    """Frame, grid and numbers of the axes."""
    axes.spines["right"].set_visible(False)
    axes.spines["top"].set_visible(keep_top)
    axes.grid(True, color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(numticks=12))
        # less than a decade may hold no power of ten
        axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1.0, 0.6)))


def rendered(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a file (`png`, `pdf`, `svg`); without dates, so that equal results give equal files."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
