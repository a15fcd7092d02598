"""The report as one HTML page that needs no other file, for the screen and for paper."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlplugins import __version__
from mlplugins.analysis.comparison import Beside, compared
from mlplugins.analysis.markup import Cell, figure, numbered, pairs, table
from mlplugins.analysis.methods_text import methods
from mlplugins.analysis.numbers import (
    DASH,
    as_given,
    conductivity_unit,
    parts,
    unit_of,
)
from mlplugins.analysis.observables.base import found_in, registered
from mlplugins.analysis.report import Report, headline, not_quotable
from mlplugins.analysis.result import RunResult

STYLE = """
:root{--ink:#1f2328;--dim:#59636e;--line:#d1d9e0;--page:#fff;--key:#eef5f9;--keyline:#0072b2;--warn:#fff6e0;
--warnline:#e69f00;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#a5adb8;--line:#454c56;--page:#15191e;
--key:#16293a;--keyline:#56b4e9;--warn:#352b12;--warnline:#e69f00}}
body{font:16px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif;color:var(--ink);background:var(--page);
max-width:60rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:0 0 .2rem}h2{font-size:1.2rem;margin:2rem 0 .5rem}small{color:var(--dim)}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;border-top:2px solid var(--ink);
border-bottom:2px solid var(--ink)}
caption{caption-side:top;text-align:left;padding:0 0 .3rem}figcaption,caption{font-size:.9em}
th,td{padding:.25rem .6rem;text-align:right;vertical-align:top;overflow-wrap:normal}
td span,th span{display:inline-block;white-space:nowrap}
thead th{border-bottom:1px solid var(--ink);font-weight:600}tbody tr+tr td{border-top:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;padding-left:0}th:first-child{white-space:nowrap}
.stacked td span+span{display:block}td:last-child,th:last-child{padding-right:0}
.text td{text-align:left}.text td:first-child{min-width:7em;width:9em}.text td+td{overflow-wrap:anywhere}
figure{margin:1.5rem 0}figure img{max-width:100%;height:auto;background:#fff}
.key,.warn{padding:.7rem 1rem;margin:1rem 0;border-left:4px solid}
.key{background:var(--key);border-color:var(--keyline)}.key p{margin:.15rem 0;font-size:1.1rem}
.key .mark{font-size:1rem;font-weight:700}
.warn{background:var(--warn);border-color:var(--warnline)}.warn ul{margin:.3rem 0;padding-left:1.2rem}
@media screen and (min-width:45rem){.text td:first-child{width:15em}}
@media screen and (max-width:45rem){figure img{width:100%!important}caption{max-width:calc(100vw - 2rem)}}
@page{margin:16mm 14mm}
@media print{:root{--ink:#000;--dim:#444;--line:#bbb;--page:#fff;--key:#eef5f9;--keyline:#0072b2;
--warn:#fff6e0}
body{font-size:9pt;max-width:none;margin:0;padding:0}h1{font-size:15pt}h2{font-size:11pt}
.key p{font-size:10pt}.wide{overflow:visible}th,td{padding:.15rem .35rem}
.key,.warn{-webkit-print-color-adjust:exact;print-color-adjust:exact}
h2,caption,thead{break-after:avoid}figure,tr,.key,li,.short{break-inside:avoid}
thead{display:table-header-group}p{orphans:3;widows:3}}
"""


@dataclass(frozen=True)
class Drawn:
    """A figure for the page: picture, caption, and its width as a share of the page's."""

    png: bytes
    caption: str
    share: float = 1.0


def report_html(report: Report, figures: Mapping[str, Drawn]) -> str:
    """One page: results, warnings, figures, checks, how it was made, methods.

    Args:
        report: all results.
        figures: by name, in their order.
    """
    title = f"Ionic conductivity of {html.escape(report.species)}"
    parts_of_page = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1><small>mlplugins {html.escape(__version__)}; value [95 % interval]</small>",
        _headline(report),
        warnings_box(report.warnings),
        "<h2>Results</h2>",
        _results(report.runs),
        *(figure(name, each.png, each.caption, each.share) for name, each in figures.items()),
        *_comparison(report),
        *_sections(report.runs),
        "<h2>How the trajectories were made</h2>",
        _dynamics(report),
        "<h2>Fit windows and sampling</h2>",
        *_sampling(report.runs),
        "<h2>Assumptions</h2>",
        pairs(report.assumptions, "What went into the numbers."),
        "<h2>Methods (to paste)</h2>",
        methods(report.runs, report.arrhenius, dict(report.assumptions).get("drift removed", "")),
        "</body></html>\n",
    ]
    return numbered("\n".join(parts_of_page))


def _headline(report: Report) -> str:
    lines = headline(report)
    mark = not_quotable(report)
    marked = f"<p class='mark'>{mark}</p>" if mark else ""
    if not lines:
        return f"<div class='key'>{marked}</div>" if marked else ""
    return f"<div class='key'>{marked}{''.join(f'<p>{html.escape(line)}</p>' for line in lines)}</div>"


def warnings_box(warnings: Sequence[str]) -> str:
    """All warnings, or that there are none."""
    if not warnings:
        return "<p>No warnings.</p>"
    items = "".join(f"<li>{html.escape(text)}</li>" for text in warnings)
    number = f"{len(warnings)} warnings" if len(warnings) > 1 else "Warning"
    return f"<div class='warn'><b>{number}</b><ul>{items}</ul></div>"


def _sections(runs: Sequence[RunResult]) -> list[str]:
    """Those of the observables."""
    texts: list[str] = []
    for name, each in registered().items():
        if found := found_in(name, runs):
            texts += each.section(found)
    return texts


def _results(runs: Sequence[RunResult]) -> str:
    d = unit_of((run.diffusion.tracer for run in runs), "cm²/s")
    sigma = conductivity_unit(value for run in runs for value in (run.sigma_tracer, run.sigma_collective))
    header = ["T (K)", d.heads("D*"), sigma.heads("σ Nernst–Einstein"), sigma.heads("σ collective")]
    rows: list[list[Cell]] = [
        [
            f"{run.temperature_k:g}",
            parts(run.diffusion.tracer, d),
            parts(run.sigma_tracer, sigma),
            parts(run.sigma_collective, sigma),
            parts(run.diffusion.haven),
        ]
        for run in runs
    ]
    species = html.escape(runs[0].species)
    caption = f"Diffusion coefficient and conductivity of {species}, value [95 % interval]."
    alone = f"<p>{species} alone; σ of all carriers together is under Carriers.</p>"
    return table([*header, "Haven ratio"], rows, caption) + (alone if found_in("onsager", runs) else "")


def _comparison(report: Report) -> list[str]:
    rows = compared(report.comparison.measured, report.runs, report.arrhenius)
    texts = []
    if any(row.measured.sigma_ms_cm for row in rows):
        texts.append(_measured_sigma([row for row in rows if row.measured.sigma_ms_cm]))
    if any(row.measured.d_cm2_s for row in rows):
        texts.append(_measured_d([row for row in rows if row.measured.d_cm2_s]))
    return ["<h2>Comparison with measured values</h2>", *texts] if texts else []


SOURCES = {"run": "at this temperature", "line": "Arrhenius line", "none": DASH}


def _measured_sigma(rows: Sequence[Beside]) -> str:
    unit = conductivity_unit(row.sigma_tracer for row in rows)
    header = ["measured by", "T (K)", unit.heads("σ measured"), unit.heads("σ Nernst–Einstein")]
    header += [unit.heads("σ collective"), "computed"]
    lines: list[list[Cell]] = [
        [
            row.measured.label,
            f"{row.measured.temperature_k:g}",
            as_given(unit.factor * (row.measured.sigma_ms_cm or 0.0)),
            parts(row.sigma_tracer, unit),
            parts(row.sigma_collective, unit),
            SOURCES[row.source],
        ]
        for row in rows
    ]
    return table(header, lines, "Measured and computed conductivity.")


def _measured_d(rows: Sequence[Beside]) -> str:
    unit = unit_of((row.d_cm2_s for row in rows), "cm²/s")
    header = ["measured by", "T (K)", unit.heads("D measured"), unit.heads("D*"), "computed"]
    lines: list[list[Cell]] = [
        [
            row.measured.label,
            f"{row.measured.temperature_k:g}",
            as_given(unit.factor * (row.measured.d_cm2_s or 0.0)),
            parts(row.d_cm2_s, unit),
            SOURCES[row.source],
        ]
        for row in rows
    ]
    return table(header, lines, "Measured and computed diffusion coefficient.")


def _dynamics(report: Report) -> str:
    if report.dynamics:
        return pairs(list(report.dynamics.items()), "How the dynamics was made, as recorded with the runs.")
    return (
        "<p>Not recorded: formula, potential, ensemble, thermostat and seeds are not known here. "
        "<code>mlplugins simulate</code> writes them into its conductivity.yaml; for other runs name them "
        "under <code>dynamics</code> in the YAML.</p>"
    )


def _sampling(runs: Sequence[RunResult]) -> list[str]:
    header = ["T (K)", "runs", "frames", "length (ps)", "ions", "volume (Å³)", "fit window (ps)", "hops"]
    header += ["log–log slope", "blocks"]
    rows = [
        [
            f"{run.temperature_k:g}",
            str(run.n_runs),
            str(run.n_frames),
            f"{run.length_ps:.5g}",
            str(run.n_ions),
            f"{run.volume_a3:.1f}".replace("nan", DASH),
            f"{run.diffusion.window.low_ps:.3g}–{run.diffusion.window.high_ps:.3g}",
            f"{run.hops:.0f}",
            f"{run.loglog_slope:.2f}".replace("nan", DASH),
            str(run.diffusion.blocks),
        ]
        for run in runs
    ]
    alike: dict[str, list[str]] = {}
    for run in runs:
        alike.setdefault(run.diffusion.window.reason, []).append(f"{run.temperature_k:g} K")
    reasons: list[tuple[str, Cell]] = [(", ".join(where), why) for why, where in alike.items()]
    caption = "Sampling: hops if D* were made of them, slope of ln MSD against ln t, blocks of time."
    return [table(header, rows, caption), pairs(reasons, "Why these fit windows.")]
