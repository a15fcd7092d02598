"""The files of a report on thermal conductivity: figures, CSV tables and the page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlplugins import __version__
from mlplugins.analysis import written
from mlplugins.analysis.conduction import AXES, Conduction, named_runs
from mlplugins.analysis.markup import Cell, figure, numbered, pairs, table
from mlplugins.analysis.numbers import measured, parts, unit_of
from mlplugins.analysis.page import STYLE, Drawn, warnings_box
from mlplugins.analysis.value import Value
from mlplugins.units import FS_PER_PS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNIT = "W/(m K)"
WRITTEN = ("results.csv", "spectrum.csv", "integral.csv", "report.html")
POINTS = 2000
BEYOND_CUT = 4.0
"""Cuts that the picture of the running integral shows."""
METHODS = (
    "The thermal conductivity κ = S(0)/(2 V k T²) was obtained from the spectral density S of the components "
    "of the heat flux (times the volume) at zero frequency (Green and Kubo). The logarithm of the "
    "periodogram was expanded in cosines of a warped frequency with a Gaussian prior, averaged over the "
    "warp and over size and smoothness of the prior, with the root of their evidence as weights, a form of "
    "cepstral analysis [1]; 95 % intervals are those of ln S(0). "
    "{projected}As a check, the integral of the autocorrelation was read at {cut:.3g} ps, with the error of "
    "blocks of time."
)
PROJECTED = "Further fluxes were projected out [2]. "
REFERENCES = (
    "L. Ercole, A. Marcolongo, S. Baroni, Sci. Rep. 7, 15835 (2017), 10.1038/s41598-017-15843-2.",
    "R. Bertossa, F. Grasselli, L. Ercole, S. Baroni, Phys. Rev. Lett. 122, 255901 (2019), "
    "10.1103/PhysRevLett.122.255901.",
)


def write_report(found: Conduction, folder: Path) -> list[Path]:
    """Write the figures (PNG and PDF), results.csv, spectrum.csv, integral.csv and report.html."""
    from mlplugins import plotting  # matplotlib only when a report is wanted

    with plotting.style():
        pictures = {"spectrum": spectrum_figure(found), "integral": integral_figure(found)}
        shown, contents = written.drawn(pictures, 0.7)
    contents["results.csv"] = _results_csv(found).encode()
    contents["spectrum.csv"] = _spectrum_csv(found).encode()
    contents["integral.csv"] = _integral_csv(found).encode()
    contents["report.html"] = page(found, shown).encode(errors="backslashreplace")
    return written.write(folder, contents)


def rows(found: Conduction) -> list[tuple[str, Value]]:
    """Every κ, by name: of all, of axes, of runs, by the running integral."""
    axes = [(f"along {axis}", value) for axis, value in zip(AXES, found.axes)]
    return [("all", found.kappa), *axes, *named_runs(found), ("running integral", found.integral)]


def spectrum_figure(found: Conduction) -> Figure:
    """The periodogram, the density, and κ at zero."""
    from mlplugins import plotting

    spectral, factor = found.cepstrum, found.factor
    frequency = FS_PER_PS * spectral.frequency
    caption = (
        "Spectral density of the heat flux as κ, W/(m K): periodogram averaged in bins (points), smooth "
        "density (line), and its value at zero frequency with the 95 % interval (left)."
    )
    picture = plotting.canvas(0.7 * plotting.PAGE, 2.8, caption)
    axes = picture.subplots()
    axes.plot(frequency, factor * spectral.spectrum, "o", ms=2.5, color=plotting.GREY, label="periodogram")
    axes.plot(frequency, factor * spectral.smooth, color=plotting.BLUE, label="density")
    low, kappa, high = found.kappa.low, found.kappa.value, found.kappa.high
    axes.errorbar(
        [frequency[0] / 2],
        [kappa],
        [[kappa - low], [high - kappa]],
        fmt="s",
        color=plotting.ORANGE,
        capsize=3,
        label="κ = S(0)/(2 V k T²)",
    )
    axes.set(xscale="log", yscale="log", xlabel="frequency (THz)", ylabel=f"S/(2 V k T²) ({UNIT})")
    axes.legend()
    plotting.finish(axes)
    return picture


def integral_figure(found: Conduction) -> Figure:
    """The running integral and where it was read."""
    from mlplugins import plotting

    caption = (
        f"Running integral of the autocorrelation (line), read at {found.cut_ps:.3g} ps (point, with the "
        "95 % interval of blocks of time); band: κ from the spectrum with its 95 % interval."
    )
    picture = plotting.canvas(0.7 * plotting.PAGE, 2.8, caption)
    axes = picture.subplots()
    shown = found.time_ps <= BEYOND_CUT * found.cut_ps
    axes.axhspan(found.kappa.low, found.kappa.high, color=plotting.ORANGE, alpha=0.2, lw=0)
    axes.axhline(found.kappa.value, color=plotting.ORANGE, label="from the spectrum")
    axes.plot(found.time_ps[shown], found.running[shown], color=plotting.BLUE, label="running integral")
    axes.axvline(found.cut_ps, color=plotting.GREY, lw=0.8, ls="--")
    kappa = found.integral.value
    if np.isfinite(found.integral.high):
        bar = [[kappa - found.integral.low], [found.integral.high - kappa]]
        axes.errorbar([found.cut_ps], [kappa], bar, fmt="o", color=plotting.BLUE, capsize=3)
    axes.set(xlabel="time (ps)", ylabel=f"κ ({UNIT})", xlim=(0, None))
    axes.legend(loc="lower right")
    plotting.finish(axes)
    return picture


def page(found: Conduction, figures: dict[str, Drawn]) -> str:
    """One page of the design of the conductivity report."""
    kappa = measured(found.kappa, UNIT)
    unit = unit_of((value for _, value in rows(found)), UNIT)
    lines: list[list[Cell]] = [[name, parts(value, unit)] for name, value in rows(found)]
    projected = not found.assumptions[2][1].startswith("none")
    cited = REFERENCES if projected else REFERENCES[:1]
    methods = METHODS.format(projected=PROJECTED if projected else "", cut=found.cut_ps)
    runs = ", ".join(f"{length:.4g}" for length in found.length_ps)
    sampling: list[tuple[str, Cell]] = [
        ("length of the runs", f"{runs} ps"),
        ("correlation time ∫⟨J(0)·J(t)⟩dt/⟨J²⟩", f"{found.correlation_ps:.3g} ps"),
        ("highest frequency analysed", f"{FS_PER_PS * float(found.cepstrum.frequency[-1]):.4g} THz"),
        ("cut of the running integral", f"{found.cut_ps:.3g} ps: {found.reason}"),
    ]
    title = "Thermal conductivity"
    mark = "<p class='mark'>Not quotable while the warnings below stand</p>" if found.warnings else ""
    body = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1><small>mlplugins {html.escape(__version__)}; value [95 % interval]</small>",
        f"<div class='key'>{mark}<p>κ({found.temperature_k:.4g} K) = {html.escape(kappa)}</p></div>",
        warnings_box(found.warnings),
        "<h2>Results</h2>",
        table(["κ", unit.heads("value")], lines, "Thermal conductivity, value [95 % interval]."),
        *(figure(name, each.png, each.caption, each.share) for name, each in figures.items()),
        "<h2>Sampling</h2>",
        pairs(sampling, "How long, and how it was read."),
        "<h2>Assumptions</h2>",
        pairs([(name, value) for name, value in found.assumptions], "What went into the numbers."),
        "<h2>Methods (to paste)</h2>",
        f"<p>{html.escape(methods)}</p><ol>{''.join(f'<li>{html.escape(each)}</li>' for each in cited)}</ol>",
        "</body></html>\n",
    ]
    return numbered("\n".join(body))


def _results_csv(found: Conduction) -> str:
    numbers = ((name, *(f"{x:.6g}" for x in (v.value, v.low, v.high))) for name, v in rows(found))
    return written.csv_table(["of", "kappa_W_mK", "low", "high"], numbers)


def _spectrum_csv(found: Conduction) -> str:
    spectral = found.cepstrum
    columns = (
        FS_PER_PS * spectral.frequency,
        found.factor * spectral.spectrum,
        found.factor * spectral.smooth,
    )
    lines = ([f"{x:.6g}" for x in line] for line in zip(*columns, strict=True))
    return written.csv_table(["frequency_THz", "periodogram_W_mK", "density_W_mK"], lines)


def _integral_csv(found: Conduction) -> str:
    """Thinned to at most 2000 times."""
    count = len(found.time_ps)
    kept = np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(int))
    columns = (found.time_ps[kept], found.running[kept], found.correlation[kept])
    lines = ([f"{x:.6g}" for x in line] for line in zip(*columns, strict=True))
    return written.csv_table(["time_ps", "kappa_W_mK", "correlation"], lines)
