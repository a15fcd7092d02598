"""`thermal`: the files of a report, of one state or of several temperatures and systems."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from mlplugins import __version__, files
from mlplugins.analysis import conduction, conduction_report, written
from mlplugins.analysis.conduction import Conduction, Settings
from mlplugins.analysis.conduction_report import UNIT
from mlplugins.analysis.conduction_trend import Conductions, KappaOfSystem, conductions
from mlplugins.analysis.markup import Cell, figure, numbered, table
from mlplugins.analysis.numbers import parts, span, unit_of
from mlplugins.analysis.page import STYLE, Drawn, warnings_box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRITTEN = ("results.csv", "trend.csv", "report.html")
MARGIN, POINTS = 1.05, 60
"""Of the lines beyond the coldest and the hottest point, and their points."""
METHODS = (
    "Each κ was obtained as its own page says. ln κ was fitted by a straight line in ln T, weighted by the "
    "errors of ln κ: κ ∝ T⁻ⁿ; and by κ = a/T, which holds for phonons that scatter each other in a classical "
    "crystal well above its Debye temperature. 95 % intervals are those of the errors of the points, times "
    "√(χ²/degrees of freedom) where that is above one; the probability is that of a χ² as large."
)


@overload
def thermal(
    paths: Sequence[Path | str], settings: Settings, folder: Path | str | None = None
) -> Conduction: ...
@overload
def thermal(
    paths: Mapping[str, Sequence[Path | str]], settings: Settings, folder: Path | str | None = None
) -> Conductions: ...
def thermal(
    paths: Sequence[Path | str] | Mapping[str, Sequence[Path | str]],
    settings: Settings,
    folder: Path | str | None = None,
) -> Conduction | Conductions:
    """Thermal conductivity κ from series of the heat flux, and its report if a `folder` is named.

    Args:
        paths: files of runs of one system at one temperature: κ; or those of each system by its name, at any
            number of temperatures: κ of all, with its trend against temperature.
        settings: what the files do not say.
        folder: for the report; of several states each has a folder of its own in it.

    Raises:
        BadInput: an unreadable file, a time step, temperature or volume that neither files nor settings say,
            runs of different intervals or cells, settings without meaning, a file of two systems.
    """
    several = isinstance(paths, Mapping)
    if folder is not None:
        inputs = list(paths.values()) if isinstance(paths, Mapping) else list(paths)
        names = {*WRITTEN, *conduction_report.WRITTEN} if several else conduction_report.WRITTEN
        files.require_writable(Path(folder), "directory", folder=True, inputs=inputs, written=sorted(names))
    if not isinstance(paths, Mapping):
        found = conduction.conduction(paths, settings)
        if folder is not None:
            conduction_report.write_report(found, Path(folder))
        return found
    all_found = conductions(paths, settings)
    if folder is not None:
        write_report(all_found, Path(folder))
    return all_found


def write_report(found: Conductions, folder: Path) -> list[Path]:
    """Write the trend (figure, trend.csv, results.csv, report.html), and a folder for every state."""
    from mlplugins import plotting  # matplotlib only when a report is wanted

    if found.single is not None:
        return conduction_report.write_report(found.single, folder)
    places = [
        path
        for system in found.systems
        for point in system.points
        for path in conduction_report.write_report(point, folder / _place(system, point))
    ]
    with plotting.style():
        shown, contents = written.drawn({"trend": trend_figure(found.systems)}, 0.7)
    contents["results.csv"] = _results_csv(found.systems).encode()
    contents["trend.csv"] = _trend_csv(found.systems).encode()
    contents["report.html"] = page(found, shown).encode(errors="backslashreplace")
    return places + written.write(folder, contents)


def _place(system: KappaOfSystem, point: Conduction) -> str:
    """The folder of a state."""
    return system.label(point).replace(" ", "-")


def trend_figure(systems: Sequence[KappaOfSystem]) -> Figure:
    """κ of every system against temperature, with its power law."""
    from mlplugins import plotting

    caption = (
        "Thermal conductivity against temperature, with 95 % intervals, and power laws with their confidence "
        "bands (two temperatures: κ = a/T, dashed)."
    )
    picture = plotting.canvas(0.7 * plotting.PAGE, 3.0, caption)
    axes = picture.subplots()
    looks = zip(systems, plotting.CYCLE * len(systems), plotting.MARKERS * len(systems))
    for system, color, marker in looks:
        t, kappa, low, high = np.array(
            [(p.temperature_k, p.kappa.value, p.kappa.low, p.kappa.high) for p in system.points]
        ).T
        line = np.geomspace(t[0] / MARGIN, t[-1] * MARGIN, POINTS)
        label = system.name
        if system.power is not None:
            middle, below, above = system.power.predict(line)
            axes.plot(line, middle, color=color)
            axes.fill_between(line, below, above, color=color, alpha=0.15, lw=0)
            label = f"{label}: n = {span(system.power.exponent)}".removeprefix(": ")
        elif system.inverse is not None:
            axes.plot(line, system.inverse.factor.value / line, color=color, ls=(0, (4, 2)))
        axes.errorbar(
            t, kappa, [kappa - low, high - kappa], fmt=marker, color=color, capsize=2, label=label or None
        )
    axes.set(xscale="log", yscale="log", xlabel="T (K)", ylabel=f"κ ({UNIT})")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(title="κ ∝ T⁻ⁿ" if any(system.power for system in systems) else None)
    plotting.finish(axes)
    return picture


def page(found: Conductions, figures: dict[str, Drawn]) -> str:
    """Laws first, then every κ, with links to the pages of the states."""
    title = "Thermal conductivity against temperature"
    mark = "<p class='mark'>Not quotable while the warnings below stand</p>" if found.warnings else ""
    sentences = "".join(f"<p>{html.escape(line)}</p>" for line in lines(found))
    links = [
        f"<li><a href='{html.escape(_place(system, point))}/report.html'>{name}</a></li>"
        for system in found.systems
        for point in system.points
        for name in [html.escape(system.label(point))]
    ]
    body = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1><small>mlplugins {html.escape(__version__)}; value [95 % interval]</small>",
        f"<div class='key'>{mark}{sentences}</div>",
        warnings_box(found.warnings),
        "<h2>Results</h2>",
        _points_table(found.systems),
        *(figure(name, each.png, each.caption, each.share) for name, each in figures.items()),
        _laws_table(found.systems),
        "<h2>Every temperature</h2>",
        f"<ul>{''.join(links)}</ul>",
        "<h2>Methods (to paste)</h2>",
        f"<p>{html.escape(METHODS)}</p>",
        "</body></html>\n",
    ]
    return numbered("\n".join(body))


def lines(found: Conductions) -> list[str]:
    """The laws in words, one line for each system."""
    texts = []
    for system in found.systems:
        name = f"{system.name}: " if system.name else ""
        if system.power is not None:
            low, high = (f"{system.points[k].temperature_k:.4g}" for k in (0, -1))
            texts.append(f"{name}κ ∝ T⁻ⁿ with n = {span(system.power.exponent)} from {low} to {high} K")
        if system.inverse is not None:
            unit = unit_of([system.inverse.factor], "W/m")
            texts.append(
                f"{name}κ = a/T with a = {span(system.inverse.factor, unit)} {unit.text} "
                f"(probability {system.inverse.probability:.2g})"
            )
    return texts


def _points_table(systems: Sequence[KappaOfSystem]) -> str:
    unit = unit_of((p.kappa for system in systems for p in system.points), UNIT)
    header = ["system", "T (K)", unit.heads("κ"), unit.heads("running integral"), "κT (W/m)", "runs (ps)"]
    rows: list[list[Cell]] = [
        [
            system.name or "–",
            f"{p.temperature_k:.4g}",
            parts(p.kappa, unit),
            parts(p.integral, unit),
            parts(p.kappa.scaled(p.temperature_k)),
            ", ".join(f"{length:.4g}" for length in p.length_ps),
        ]
        for system in systems
        for p in system.points
    ]
    return table(header, rows, "Thermal conductivity, value [95 % interval].")


def _laws_table(systems: Sequence[KappaOfSystem]) -> str:
    rows: list[list[Cell]] = []
    for system in systems:
        power, inverse = system.power, system.inverse
        if inverse is None:
            continue
        rows.append(
            [
                system.name or "–",
                "–" if power is None else parts(power.exponent),
                "–" if power is None else f"{power.probability:.2g}",
                parts(inverse.factor),
                f"{inverse.probability:.2g}",
            ]
        )
    if not rows:
        return ""
    header = ["system", "n of κ ∝ T⁻ⁿ", "its probability", "a of κ = a/T (W/m)", "its probability"]
    return table(header, rows, "Laws of the trend; n needs three temperatures.")


def _results_csv(systems: Sequence[KappaOfSystem]) -> str:
    def numbers() -> Iterable[list[str]]:
        for system in systems:
            for p in system.points:
                values = [
                    p.temperature_k,
                    *(x for v in (p.kappa, p.integral) for x in (v.value, v.low, v.high)),
                ]
                yield [system.name, *(f"{x:.6g}" for x in (*values, p.volume_a3))]

    head = "system T_K kappa_W_mK low high integral_W_mK integral_low integral_high volume_A3"
    return written.csv_table(head.split(), numbers())


def _trend_csv(systems: Sequence[KappaOfSystem]) -> str:
    """The power laws along temperature."""
    rows: list[list[str]] = []
    for system in systems:
        if system.power is not None:
            ends = [system.points[k].temperature_k for k in (0, -1)]
            t = np.geomspace(ends[0] / MARGIN, ends[1] * MARGIN, POINTS)
            columns = np.array([t, *system.power.predict(t)]).T
            rows += [[system.name, *(f"{x:.6g}" for x in row)] for row in columns]
    return written.csv_table(["system", "T_K", "kappa_W_mK", "low", "high"], rows)
