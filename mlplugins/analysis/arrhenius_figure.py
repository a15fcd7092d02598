"""The Arrhenius figure: D, and σT of single ions and of all together, with lines, measured values and other
systems."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from mlplugins import plotting
from mlplugins.analysis import numbers
from mlplugins.analysis.arrhenius import ROOM_K, Arrhenius, ArrheniusResult
from mlplugins.analysis.comparison import Comparison
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.value import Value
from mlplugins.plotting import BLUE, GREEN, INK, ORANGE, PURPLE
from mlplugins.units import MS_CM_PER_S_CM

LABEL = 34
"""Characters of a line of the legend."""
ROOM = 30.0
"""The frame leaves bars and bands this factor beside their values, lest they press the points together; it
cuts the rest."""
FARTHEST = 1e30
"""Factor beside the value at which what reaches to zero or infinity is drawn, outside any frame."""
TICK_SHARE = 0.09
"""Of the width of a panel: the room that the label of a temperature needs."""
OTHERS = (GREEN, PURPLE, plotting.SKY, plotting.AMBER)


def arrhenius_figure(
    runs: Sequence[RunResult], law: ArrheniusResult | None, comparison: Comparison
) -> Figure:
    """D (left) and σT (right) on logarithmic axes against 1000/T.

    Args:
        runs: cold to hot.
        law: lines with their 95 % prediction bands; other laws where they are significant.
        comparison: further points of both panels.
    """
    conducts = any(run.sigma_tracer is not None for run in runs)
    width = plotting.PAGE if conducts else 1.2 * plotting.COLUMN
    figure = plotting.canvas(width, 3.3, _caption(runs, law, comparison, conducts))
    panels = figure.subplots(1, 2 if conducts else 1, squeeze=False)[0]
    inverse = _grid(runs, law, comparison)
    _diffusion(panels[0], runs, law, inverse)
    if conducts:
        _conductivity(panels[1], runs, law, inverse)
    _compare(panels, comparison)
    temperatures = {run.temperature_k for run in runs} | ({ROOM_K} if law else set())
    for axes in panels:
        _dress(axes, inverse, sorted(temperatures))
    plotting.letters(panels if conducts else [])
    return figure


def _grid(runs: Sequence[RunResult], law: ArrheniusResult | None, comparison: Comparison) -> Any:
    """1/T from left to right, with all points inside."""
    temperatures = [run.temperature_k for run in runs]
    temperatures += [each.temperature_k for each in comparison.measured]
    temperatures += [point.temperature_k for each in comparison.systems for point in each.points]
    if law is not None:
        temperatures.append(ROOM_K)
    margin = 0.04 * (1 / min(temperatures) - 1 / max(temperatures)) or 0.04 / min(temperatures)
    return np.linspace(1 / max(temperatures) - margin, 1 / min(temperatures) + margin, 300)


def _diffusion(axes: Any, runs: Sequence[RunResult], law: ArrheniusResult | None, inverse: Any) -> None:
    if law is not None:
        energy = numbers.span(law.activation_ev)
        _line(axes, law.law, inverse, runs, (BLUE, f"$E_a$ = {energy} eV"))
        _other_laws(axes, law, 1 / inverse)
        room = f"{numbers.significant(law.room_d.value)} cm²/s" if law.room_d.determined else numbers.UNKNOWN
        label = f"300 K, extrapolated: {room}"
        _points(axes, [(ROOM_K, law.room_d)], fmt="o", mfc="white", color=BLUE, label=label)
    _points(axes, [(run.temperature_k, run.diffusion.tracer) for run in runs], fmt="o", color=INK)
    axes.set_ylabel(f"D*({runs[0].species}) (cm²/s)")


def _conductivity(axes: Any, runs: Sequence[RunResult], law: ArrheniusResult | None, inverse: Any) -> None:
    """σT in S K/cm: it has the activation energy of D if the number of ions does not change."""
    tracer = [(run.temperature_k, _sigma_t(run.sigma_tracer, run.temperature_k)) for run in runs]
    both = [(run.temperature_k, _sigma_t(run.sigma_collective, run.temperature_k)) for run in runs]
    if law is not None and law.room_sigma is not None:
        factor = law.room_sigma.value / law.room_d.value * ROOM_K / MS_CM_PER_S_CM
        _line(axes, law.law, inverse, runs, (BLUE, ""), factor)
    if law is not None and law.collective is not None:
        energy = numbers.span(law.collective.activation())
        text = f"collective, $E_a$ = {energy} eV"
        _line(axes, law.collective, inverse, runs, (ORANGE, text), 1 / MS_CM_PER_S_CM)
    _points(axes, tracer, fmt="o", color=INK, label="Nernst–Einstein")
    known = [(t, value) for t, value in both if value is not None and value.determined]
    name = "" if law and law.collective else "collective"  # its line has the label
    _points(axes, known, fmt="s", mfc="white", color=ORANGE, label=name)
    axes.set_ylabel(f"σT({runs[0].species}) (S K/cm)")


def _sigma_t(sigma: Value | None, temperature_k: float) -> Value | None:
    return sigma and sigma.scaled(temperature_k / MS_CM_PER_S_CM)


def _line(
    axes: Any,
    law: Arrhenius,
    inverse: Any,
    runs: Sequence[RunResult],
    look: tuple[str, str],
    factor: float = 1.0,
) -> None:
    """A law with its band; dashed where it is extrapolated."""
    color, label = look
    middle, low, high = (factor * part for part in law.predict(1 / inverse))
    x, low, high = 1000 * inverse, np.maximum(low, middle / FARTHEST), np.minimum(high, middle * FARTHEST)
    band = np.concatenate([np.column_stack([x, low]), np.column_stack([x, high])[::-1]])
    axes.add_collection(PolyCollection([band], facecolor=color, alpha=0.12, lw=0), autolim=False)
    _make_room(axes, x, (low, middle, high))
    fitted = [1 / run.temperature_k for run in runs]
    inside = (inverse >= 0.999 * min(fitted)) & (inverse <= 1.001 * max(fitted))
    axes.plot(x, middle, color=color, lw=0.9, ls=(0, (4, 2)))
    axes.plot(x[inside], middle[inside], color=color, lw=1.3, label=label or None)


def _points(axes: Any, points: Iterable[tuple[float, Value | None]], label: str = "", **look: Any) -> None:
    """Positive values with their intervals, or these alone where a value is undetermined; an end at zero
    reaches down to the axis."""
    known = [(t, value) for t, value in points if value is not None and 0 < value.value < np.inf]
    if not known:
        return
    x, y = 1000 / np.array([t for t, _ in known]), np.array([value.value for _, value in known])
    low = np.maximum([value.low for _, value in known], y / FARTHEST)
    high = np.minimum([value.high for _, value in known], y * FARTHEST)
    limits = axes.dataLim.frozen()
    bars = np.array([y - low, high - y])
    determined = np.array([value.determined for _, value in known])
    for part, style in ((determined, look), (~determined, look | {"fmt": "none"})):
        if part.any():
            options = {"ls": "none", "ms": 4, "capsize": 2, "lw": 0.9, "label": label or None}
            axes.errorbar(x[part], y[part], bars[:, part], **options | style)
            label = ""
    axes.dataLim.set(limits)
    _make_room(axes, x, (low, y, high))


def _make_room(axes: Any, x: Any, ends: tuple[Any, Any, Any]) -> None:
    """Extend the frame by values with their lower and upper ends, as far as `ROOM` lets them reach."""
    low, middle, high = ends
    for end in (np.maximum(low, middle / ROOM), np.minimum(high, middle * ROOM)):
        axes.update_datalim(np.column_stack([x, end]))


def _compare(panels: Sequence[Any], comparison: Comparison) -> None:
    looks = zip(comparison.systems, OTHERS * len(comparison.systems), plotting.MARKERS[2:] * 9)
    for system, color, marker in looks:
        points = system.points
        look = {"color": color, "label": system.label}
        _points(panels[0], [(p.temperature_k, p.d_cm2_s) for p in points], fmt=marker, **look)
        if len(panels) > 1:
            tracer = [(p.temperature_k, _sigma_t(p.sigma_tracer, p.temperature_k)) for p in points]
            both = [(p.temperature_k, _sigma_t(p.sigma_collective, p.temperature_k)) for p in points]
            _points(panels[1], tracer, fmt=marker, **look)
            _points(panels[1], both, fmt=marker, mfc="white", color=color)
    for number, label in enumerate(dict.fromkeys(each.label for each in comparison.measured)):
        mine = [each for each in comparison.measured if each.label == label]
        d = [(each.temperature_k, each.d_cm2_s) for each in mine if each.d_cm2_s]
        sigma = [(each.temperature_k, each.sigma_ms_cm) for each in mine if each.sigma_ms_cm]
        sigma_t = [(t, value * t / MS_CM_PER_S_CM) for t, value in sigma]
        for axes, values in zip(panels, (d, sigma_t)):
            if values:
                t, y = np.array(values).T
                axes.plot(1000 / t, y, "*x+"[number % 3], color=INK, ms=7, mew=0.9, label=label, zorder=5)


def _other_laws(axes: Any, result: ArrheniusResult, temperatures: Any) -> None:
    """Two regimes and VFT where they beat the line."""
    if result.vft is not None and result.vft.significant:
        values = [result.vft.at(float(t)).value for t in temperatures]
        axes.plot(1000 / temperatures, values, color=ORANGE, label=f"VFT, $T_0$ = {result.vft.t0_k:.0f} K")
    regimes = result.regimes
    if regimes is not None and regimes.significant:
        axes.axvline(1000 / regimes.break_k, color=GREEN, lw=0.9, ls=":")
        label = f"two regimes: {numbers.span(regimes.cold_ev)} | {numbers.span(regimes.hot_ev)} eV"
        axes.plot(1000 / ROOM_K, regimes.room.value, "D", mfc="white", color=GREEN, label=label)


def _dress(axes: Any, inverse: Any, temperatures: Sequence[float]) -> None:
    axes.set(yscale="log", xlabel="1000/T (K⁻¹)")
    axes.set_xlim(1000 * inverse[0], 1000 * inverse[-1])
    top = axes.secondary_xaxis("top", functions=(_swap, _swap))
    top.set_xticks(temperatures, _apart(temperatures, TICK_SHARE * float(inverse[-1] - inverse[0])))
    top.set_xlabel("T (K)")
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        wrapped = [textwrap.fill(label, LABEL) for label in labels]
        axes.legend(handles, wrapped, loc="lower left", borderaxespad=0.3).set_in_layout(False)
    plotting.finish(axes, keep_top=True)


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


def _caption(
    runs: Sequence[RunResult], law: ArrheniusResult | None, comparison: Comparison, conducts: bool
) -> str:
    first, second = ("(a) ", "(b) ") if conducts else ("", "")
    texts = [f"{first}Self-diffusion coefficient D* of {runs[0].species} against inverse temperature."]
    if conducts:
        texts.append(
            f"{second}σT: Nernst–Einstein value from D* (filled circles) and collective value (open squares; "
            "where it is not determined, none is drawn)."
        )
    texts.append(
        "Bars: 95 % intervals (as the bands, cut by the frame where they are wide), without a mark where the "
        "value is undetermined."
    )
    if law is not None:
        texts.append(
            "Lines: weighted Arrhenius fits, dashed where extrapolated, with their 95 % prediction bands; "
            "open circle: D* at 300 K by the line, if it is determined."
        )
    if comparison.systems:
        texts.append("Other systems: Nernst–Einstein values filled, collective values open.")
    if comparison.measured:
        names = ", ".join(dict.fromkeys(each.label for each in comparison.measured))
        texts.append(f"Measured: {names}.")
    return " ".join(texts)


def _swap(values: Any) -> Any:
    """1000/T ↔ T; the axis asks for zero too."""
    values = np.asarray(values, dtype=float)
    return 1000.0 / np.where(values == 0, np.finfo(float).tiny ** 0.5, values)
