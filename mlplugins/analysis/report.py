"""The conductivity report: JSON, CSV tables, figures and one self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlplugins import __version__, files
from mlplugins.analysis.arrhenius import ArrheniusResult
from mlplugins.analysis.markup import pairs, span, table
from mlplugins.analysis.methods_text import methods
from mlplugins.analysis.observables.base import each_found, found_in, registered
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.value import Value

CSV_POINTS = 2000
FIRST_FIGURES = ("msd", "convergence", "arrhenius")


@dataclass(frozen=True)
class Report:
    """All results of one call.

    Attributes:
        assumptions: (name, value) of every setting that went into the numbers.
        warnings: everything that was dropped, assumed or doubted.
    """

    species: str
    runs: Sequence[RunResult]
    arrhenius: ArrheniusResult | None
    warnings: Sequence[str]
    assumptions: Sequence[tuple[str, str]] = ()

    @property
    def headline_note(self) -> str:
        """What the numbers of the Arrhenius line do not include."""
        notes = []
        if found_in("onsager", self.runs):
            notes.append(f"{self.species} alone")
        law = self.arrhenius
        other = law and [found for found in (law.regimes, law.vft) if found and found.significant]
        if other:
            notes.append("of one line, though another law fits better: see the warnings")
        return f" ({'; '.join(notes)})" if notes else ""

    def as_json(self) -> dict[str, object]:
        """The result of `--json`; all intervals are 95 %."""
        return {
            "species": self.species,
            "runs": [run.as_json() for run in self.runs],
            "arrhenius": self.arrhenius.as_json() if self.arrhenius else None,
            "warnings": list(self.warnings),
        }


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write the figures (PNG and PDF), results.csv, msd.csv and report.html; return the paths."""
    from mlplugins.analysis import plots  # matplotlib only when a report is wanted

    made = {}
    for name, each in registered().items():
        if found := found_in(name, report.runs):
            made.update(each.figures(found))
    if report.arrhenius:
        made["arrhenius"] = plots.arrhenius_figure(report.runs, report.arrhenius)
    # stable: the others follow as the observables do
    places = {name: place for place, name in enumerate(FIRST_FIGURES)}
    drawn = dict(sorted(made.items(), key=lambda item: places.get(item[0], len(places))))
    figures = {f"{name}.png": plots.rendered(figure) for name, figure in drawn.items()}
    contents = dict(figures)
    contents.update({f"{name}.pdf": plots.rendered(figure, "pdf") for name, figure in drawn.items()})
    contents["results.csv"] = results_csv(report).encode(errors="backslashreplace")
    contents["msd.csv"] = msd_csv(report).encode(errors="backslashreplace")
    contents["report.html"] = report_html(report, figures).encode(errors="backslashreplace")
    for name, data in contents.items():
        files.write_bytes(folder / name, data)
    return [folder / name for name in contents]


def results_csv(report: Report) -> str:
    """One line per temperature; D, σ and H of the species with their 95 % limits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ["D_cm2_s", "sigma_tracer_mS_cm", "D_collective_cm2_s", "sigma_collective_mS_cm", "haven_ratio"]
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow(
        ["T_K", *columns, "fit_low_ps", "fit_high_ps", "n_ions", "volume_A3", "n_frames", "length_ps"]
    )
    for run in report.runs:
        result = run.diffusion
        values = [result.tracer, run.sigma_tracer, result.collective, run.sigma_collective, result.haven]
        cells = [text for value in values for text in _cells(value)]
        window = [f"{result.window.low_ps:.6g}", f"{result.window.high_ps:.6g}"]
        size = [run.n_ions, f"{run.volume_a3:.6f}".replace("nan", ""), run.n_frames, f"{run.length_ps:.6g}"]
        writer.writerow([f"{run.temperature_k:g}", *cells, *window, *size])
    return buffer.getvalue()


def _cells(value: Value | None) -> list[str]:
    return (
        ["", "", ""]
        if value is None
        else [f"{number:.6g}" for number in (value.value, value.low, value.high)]
    )


def msd_csv(report: Report) -> str:
    """MSD curves in long form: T, lag, tracer, its axes, collective; thinned to at most 2000 lags each."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["T_K", "lag_ps", "msd_A2", "msd_x_A2", "msd_y_A2", "msd_z_A2", "msd_collective_A2", "loglog_slope"]
    )
    for run in report.runs:
        curve = run.curve
        count = len(curve.time_ps)
        for index in np.unique(np.linspace(0, count - 1, min(count, CSV_POINTS)).astype(int)):
            numbers = [curve.time_ps[index], curve.tracer[index], *curve.axes[index]]
            both = f"{curve.collective[index]:.6g}" if curve.collective is not None else ""
            writer.writerow(
                [
                    f"{run.temperature_k:g}",
                    *(f"{number:.6g}" for number in numbers),
                    both,
                    f"{curve.slope[index]:.4f}",
                ]
            )
    return buffer.getvalue()


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th{border-bottom:2px solid #888;font-weight:600}th:first-child,td:first-child{text-align:left}
.text td{text-align:left;white-space:normal}small{color:#555}img{max-width:100%;height:auto}
.warn li{margin:.3rem 0}.warn{background:#fff6e0;border-left:4px solid #e0a000;padding:.6rem 1rem .6rem 2rem}
.key{font-size:1.15rem;background:#eef5f9;border-left:4px solid #0b5c8a;padding:.6rem 1rem}
"""


def report_html(report: Report, figures: dict[str, bytes]) -> str:
    """One page that needs no other file: results, figures, warnings, assumptions, methods."""
    title = f"Ionic conductivity of {html.escape(report.species)}"
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title><style>{STYLE}</style>",
        f"<h1>{title}</h1><small>mlplugins {html.escape(__version__)}; all intervals are 95 %</small>",
        _headline(report),
        "<h2>Results</h2>",
        _results_table(report.runs),
        *(_image(name, data) for name, data in figures.items()),
        *_sections(report.runs),
        "<h2>Warnings</h2>",
        _warning_list(report.warnings),
        "<h2>Fit windows and sampling</h2>",
        _sampling_table(report.runs),
        "<h2>Assumptions</h2>",
        pairs(report.assumptions),
        "<h2>Methods (to paste)</h2>",
        methods(report.runs, report.arrhenius, dict(report.assumptions).get("drift removed", "")),
        "</html>\n",
    ]
    return "\n".join(parts)


def _sections(runs: Sequence[RunResult]) -> list[str]:
    """Those of the observables."""
    parts: list[str] = []
    for name, each in registered().items():
        if found := found_in(name, runs):
            parts += each.section(found)
    return parts


def observable_lines(runs: Sequence[RunResult]) -> list[str]:
    """Lines that the observables print below the table on the terminal."""
    return [line for each, run, found in each_found(runs) for line in each.lines(run, found)]


def _headline(report: Report) -> str:
    law = report.arrhenius
    if law is None:
        return ""
    return (
        f"<p class='key'>Ea = {span(law.activation_ev)} eV &nbsp; D(300 K) = {span(law.room_d)} cm²/s &nbsp; "
        f"σ(300 K) = {span(law.room_sigma)} mS/cm{html.escape(report.headline_note)}</p>"
    )


def _results_table(runs: Sequence[RunResult]) -> str:
    header = ["T (K)", "D (cm²/s)", "σ tracer (mS/cm)", "σ collective (mS/cm)", "Haven ratio"]
    rows = [
        [
            f"{run.temperature_k:g}",
            span(run.diffusion.tracer),
            span(run.sigma_tracer),
            span(run.sigma_collective),
            span(run.diffusion.haven),
        ]
        for run in runs
    ]
    alone = ""
    if found_in("onsager", runs):
        alone = f"<p>{html.escape(runs[0].species)} alone; σ of all carriers together is under Carriers.</p>"
    return table(header, rows) + alone


def _sampling_table(runs: Sequence[RunResult]) -> str:
    header = [
        "T (K)",
        "runs",
        "frames",
        "length (ps)",
        "ions",
        "volume (Å³)",
        "hops",
        "log–log slope",
        "time blocks",
    ]
    rows = [
        [
            f"{run.temperature_k:g}",
            str(run.n_runs),
            str(run.n_frames),
            f"{run.length_ps:.5g}",
            str(run.n_ions),
            f"{run.volume_a3:.1f}".replace("nan", "–"),
            f"{run.hops:.0f}",
            f"{run.loglog_slope:.2f}",
            str(run.diffusion.blocks),
        ]
        for run in runs
    ]
    reasons = [(f"{run.temperature_k:g} K", run.diffusion.window.reason) for run in runs]
    return table(header, rows) + "<br>" + pairs(reasons)


def _warning_list(warnings: Sequence[str]) -> str:
    if not warnings:
        return "<p>None.</p>"
    return "<ul class='warn'>" + "".join(f"<li>{html.escape(text)}</li>" for text in warnings) + "</ul>"


def _image(name: str, data: bytes) -> str:
    code = base64.b64encode(data).decode("ascii")
    return f"<p><img alt='{html.escape(name)}' src='data:image/png;base64,{code}'></p>"
