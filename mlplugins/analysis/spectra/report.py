"""The files of a report on spectra: figures, CSV tables and the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlplugins import __version__, files
from mlplugins.analysis import written
from mlplugins.analysis.markup import Cell, figure, numbered, pairs, table
from mlplugins.analysis.numbers import DASH, decimals, raised, rounded, significant
from mlplugins.analysis.page import STYLE, Drawn, warnings_box
from mlplugins.analysis.spectra.result import Ratio, Spectrum
from mlplugins.analysis.spectra.settings import Settings
from mlplugins.analysis.spectra.study import spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_DRAWN = ("isotropic", "anisotropic")
"""Of Raman spectra: VV and VH show the same."""
SHOWN_PEAKS = 12
"""Peaks that are marked in the figure, the most intense ones."""
WRITTEN = (
    *(f"{name}.{suffix}" for name in ("spectrum", "depolarisation") for suffix in ("png", "pdf")),
    "spectrum.csv",
    "peaks.csv",
    "report.html",
)
METHODS = {
    "ir": "The infrared spectrum n(ω)α(ω) = ω²S(ω)/(6VkTε₀c) was obtained from the spectral density S of the "
    "dipole moment",
    "raman": "Raman spectra were obtained from the spectral densities of the isotropic part ᾱ = Tr α/3 and "
    "the anisotropic part β = α − ᾱ of the polarizability, ω²(45 S_ᾱ + (21/2) S_β)/(πkT), whose "
    "integral over a mode "
    "is its activity 45ᾱ'² + 7γ'²; VV and VH are for linearly polarised "
    "light,",
    "vdos": "The vibrational density of states Σ m S_v(ω)/(πkT) was obtained from the spectral densities "
    "of the "
    "velocities",
    "power": "The power spectrum was obtained from the spectral density of the series",
}


def spectra(
    kind: str, paths: Sequence[Path | str], settings: Settings, folder: Path | str | None = None
) -> Spectrum:
    """Spectra of the runs in these files, as `mlplugins spectra`; and their report if a `folder` is named.

    Args:
        kind: `ir`, `raman`, `vdos` or `power`.
        paths: series or trajectories; with `settings.beads`, every so many are one run.
        settings: what the files do not say.
        folder: of the report.

    >>> import tempfile
    >>> times = 0.5 * np.arange(40000)  # fs
    >>> file = Path(tempfile.mkdtemp()) / "mu.npy"
    >>> np.save(file, np.cos(2 * np.pi * times[:, None] / 20.0 + np.arange(3)))
    >>> found = spectra("ir", [file], Settings(interval_fs=0.5, temperature_k=300.0, unit="e*A"))
    >>> [round(peak.position) for peak in found.peaks]
    [1668]

    Raises:
        BadInput: as `mlplugins.analysis.spectra.study.spectrum`.
    """
    if folder is not None:
        inputs = [*paths, *([settings.experiment] if settings.experiment else [])]
        files.require_writable(Path(folder), "directory", folder=True, inputs=inputs, written=WRITTEN)
    found = spectrum(kind, paths, settings)
    if folder is not None:
        write_report(found, Path(folder))
    return found


def write_report(found: Spectrum, folder: Path) -> list[Path]:
    """Write the figures (PNG and PDF), spectrum.csv, peaks.csv and report.html."""
    from mlplugins import plotting  # matplotlib only when a report is wanted

    with plotting.style():
        pictures = {"spectrum": spectrum_figure(found)}
        if found.ratio is not None:
            pictures["depolarisation"] = ratio_figure(found, found.ratio)
        shown, contents = written.drawn(pictures, 0.85)
    contents["spectrum.csv"] = _spectrum_csv(found).encode()
    contents["peaks.csv"] = _peaks_csv(found).encode()
    contents["report.html"] = page(found, shown).encode(errors="backslashreplace")
    return written.write(folder, contents)


def with_error(value: float, error: float) -> str:
    """A number and its standard error, to two digits of the error.

    >>> with_error(77.123, 0.53), with_error(77.123, float("nan")), with_error(2.0, 0.0)
    ('77.12 ± 0.53', '77', '2.000 ± 0')
    """
    if not math.isfinite(error):
        return significant(value)
    if error <= 1e-6 * abs(value):
        return f"{significant(value, 4)} ± 0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        power = math.floor(math.log10(abs(value))) if value else 0
        return f"({with_error(value / 10.0**power, error / 10.0**power)}) × 10{raised(power)}"
    places = decimals(error)
    return f"{rounded(value, places)} ± {rounded(error, places)}"


def spectrum_figure(found: Spectrum) -> Figure:
    """The curves with their bands, peaks, and the experiment."""
    from mlplugins import plotting

    caption = (
        f"{found.kind.title}: mean (line) and one standard error over {found.blocks} {found.blocks_of} "
        f"(band); lines are {found.width_cm:.3g} cm⁻¹ wide; numbers are positions of peaks, "
        "cm⁻¹."
    )
    measured = found.experiment
    if measured is not None:
        how = "scaled to the same area" if measured.scaled_to_area else f"times {measured.scale:g}"
        caption += f" Dashed: {measured.path.name}, {how}."
    picture = plotting.canvas(0.85 * plotting.PAGE, 3.2, caption)
    axes = picture.subplots()
    inside = _inside(found)
    x = found.per_cm[inside]
    curves = {name: values for name, values in found.curves.items() if name not in NOT_DRAWN}
    for color, (name, values) in zip(plotting.CYCLE, curves.items()):
        low, high = values - found.errors[name], values + found.errors[name]
        axes.fill_between(x, low[inside], high[inside], color=color, alpha=0.25, lw=0)
        axes.plot(x, values[inside], color=color, label=name, lw=1.0)
    if measured is not None:
        axes.plot(
            measured.per_cm, measured.values, "--", color=plotting.INK, lw=0.9, label=measured.path.name
        )
    top = float((found.main + np.nan_to_num(found.main_error))[inside].max())
    for peak in sorted(found.peaks, key=lambda each: -each.height)[:SHOWN_PEAKS]:
        axes.annotate(
            f"{peak.position:.0f}",
            (peak.position, peak.height),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=6,
            color=plotting.GREY,
        )
    axes.set(
        xlabel="wave number (cm⁻¹)",
        ylabel=f"{found.axis} ({found.unit})",
        xlim=(found.low_cm, found.high_cm),
        ylim=(0, 1.1 * top),
    )
    if len(curves) > 1 or measured is not None:
        axes.legend()
    plotting.finish(axes)
    return picture


def ratio_figure(found: Spectrum, ratio: Ratio) -> Figure:
    """The depolarisation ratio, where there is intensity."""
    from mlplugins import plotting

    caption = (
        "Depolarisation ratio VH/VV where VV is more than 1 % of its maximum, with one standard error; "
        "3/4 (dashed) where the isotropic part vanishes."
    )
    picture = plotting.canvas(0.85 * plotting.PAGE, 2.4, caption)
    axes = picture.subplots()
    inside = _inside(found)
    vv = found.curves["VV"]
    some = vv > 0.01 * vv[inside].max()
    shown = np.where(some, ratio.value, np.nan)[inside]
    error = np.nan_to_num(ratio.error[inside])
    x = found.per_cm[inside]
    axes.fill_between(x, shown - error, shown + error, color=plotting.BLUE, alpha=0.25, lw=0)
    axes.plot(x, shown, color=plotting.BLUE, lw=1.0)
    axes.axhline(0.75, color=plotting.GREY, ls="--", lw=0.8)
    axes.set(xlabel="wave number (cm⁻¹)", ylabel="VH/VV", xlim=(found.low_cm, found.high_cm), ylim=(0, 0.85))
    plotting.finish(axes)
    return picture


def page(found: Spectrum, figures: dict[str, Drawn]) -> str:
    """One page of the design of the conductivity report."""
    unit = found.integral_unit
    total = with_error(found.integral, found.integral_error)
    lines: list[list[Cell]] = [
        [
            f"{peak.position:.1f}",
            f"{peak.low:.0f} – {peak.high:.0f}",
            with_error(peak.intensity, peak.error),
            f"{100 * peak.intensity / found.integral:.1f} %",
            *([] if found.ratio is None else [_ratio_at(found, found.ratio, peak.position)]),
        ]
        for peak in found.peaks
    ]
    head = ["position (cm⁻¹)", "from – to (cm⁻¹)", f"intensity ({unit})", "of all"]
    head += ["depolarisation"] if found.ratio is not None else []
    title = found.kind.title
    mark = "<p class='mark'>Not quotable while the warnings below stand</p>" if found.warnings else ""
    runs: list[tuple[str, Cell]] = [
        (f"run {k + 1}", f"{length:.4g} ps, {value:.5g} {unit}")
        for k, (length, value) in enumerate(zip(found.length_ps, found.runs, strict=True))
    ]
    measured: list[tuple[str, Cell]] = []
    if found.experiment is not None:
        each = found.experiment
        how = "to the same area" if each.scaled_to_area else "as given"
        measured = [
            ("file", str(each.path)),
            ("factor", f"{each.scale:.4g}, {how}"),
            ("overlap ∫√(ab) of the areas", f"{each.overlap:.3f} (1: the same shape)"),
        ]
    body = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1><small>mlplugins {html.escape(__version__)}; value ± standard error</small>",
        f"<div class='key'>{mark}<p>{_many(len(found.peaks), 'peak')}; integral "
        f"{html.escape(f'{total} {unit}')}</p></div>",
        warnings_box(found.warnings),
        *(figure(name, each.png, each.caption, each.share) for name, each in figures.items()),
        "<h2>Peaks</h2>",
        table(head, lines, "Maxima, and the intensity between the minima beside them.")
        if lines
        else "<p>None.</p>",
        *(["<h2>Experiment</h2>", pairs(measured, "The measured spectrum.")] if measured else []),
        "<h2>Runs</h2>",
        pairs(runs, "Length and integral over all frequencies."),
        "<h2>Assumptions</h2>",
        pairs([(name, value) for name, value in found.assumptions], "What went into the numbers."),
        "<h2>Methods (to paste)</h2>",
        f"<p>{html.escape(methods(found))}</p>",
        "</body></html>\n",
    ]
    return numbered("\n".join(body))


def methods(found: Spectrum) -> str:
    """A paragraph on how the spectrum was made."""
    state = found.state
    total = sum(found.length_ps)
    corrected = found.kind.name in ("ir", "raman")
    how = f" The quantum correction is {state.correction}." if corrected else ""
    at = "" if math.isnan(state.temperature_k) else f" at {state.temperature_k:.4g} K"
    return (
        f"{METHODS[found.kind.name]} of {_many(len(found.runs), 'run')}, {total:.4g} ps in all, with samples "
        f"every {state.interval_fs:g} fs{at}: periodograms of half-overlapping segments with Hann's window "
        f"(Welch), which makes lines {found.width_cm:.3g} cm⁻¹ wide.{how} Errors are standard errors "
        f"over {found.blocks} "
        f"{found.blocks_of}."
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _ratio_at(found: Spectrum, ratio: Ratio, position: float) -> str:
    k = int(np.argmin(np.abs(found.per_cm - position)))
    value = float(ratio.value[k])
    return DASH if math.isnan(value) else with_error(value, float(ratio.error[k]))


def _inside(found: Spectrum) -> np.ndarray:
    return (found.per_cm >= found.low_cm) & (found.per_cm <= found.high_cm)


def _spectrum_csv(found: Spectrum) -> str:
    inside = _inside(found)
    columns = [found.per_cm]
    head = ["wavenumber_cm-1"]
    for name, values in found.curves.items():
        columns += [values, found.errors[name]]
        head += [name, f"{name}_error"]
    if found.ratio is not None:
        columns += [found.ratio.value, found.ratio.error]
        head += ["depolarisation", "depolarisation_error"]
    lines = zip(*(column[inside] for column in columns), strict=True)
    return written.csv_table(head, ([f"{x:.6g}" for x in line] for line in lines))


def _peaks_csv(found: Spectrum) -> str:
    head = ["position_cm-1", "low_cm-1", "high_cm-1", "height", "intensity", "error"]
    return written.csv_table(head, ([f"{x:.7g}" for x in peak.as_json().values()] for peak in found.peaks))
