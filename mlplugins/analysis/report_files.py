"""The files of a conductivity report: figures, CSV tables and the page; none of an earlier report is left."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlplugins.analysis import written
from mlplugins.analysis.observables.base import found_in, registered
from mlplugins.analysis.page import report_html
from mlplugins.analysis.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSV_POINTS = 2000
FIRST_FIGURES = ("msd", "convergence", "arrhenius")


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write the figures (PNG and PDF), the tables (CSV) and report.html; return the paths.

    Figures and tables that an earlier report wrote there, and this one does not have, are removed.
    """
    from mlplugins import plotting  # matplotlib only when a report is wanted

    with plotting.style():
        shown, contents = written.drawn(_figures(report))
    contents["results.csv"] = results_csv(report).encode(errors="backslashreplace")
    contents["msd.csv"] = msd_csv(report).encode(errors="backslashreplace")
    contents |= {name: text.encode(errors="backslashreplace") for name, text in _tables(report).items()}
    contents["report.html"] = report_html(report, shown).encode(errors="backslashreplace")
    former = _former(folder)
    paths = written.write(folder, contents)
    for name in former - contents.keys():
        (folder / name).unlink(missing_ok=True)
    return paths


def _figures(report: Report) -> dict[str, Figure]:
    """By name: the main ones, then those of the observables in their order."""
    from mlplugins.analysis.arrhenius_figure import arrhenius_figure

    made: dict[str, Figure] = {}
    for name, each in registered().items():
        if found := found_in(name, report.runs):
            made.update(each.figures(found))
    if len(report.runs) > 1 or report.comparison:
        made["arrhenius"] = arrhenius_figure(report.runs, report.arrhenius, report.comparison)
    places = {name: place for place, name in enumerate(FIRST_FIGURES)}
    return dict(sorted(made.items(), key=lambda item: places.get(item[0], len(places))))


def _tables(report: Report) -> dict[str, str]:
    """Those of the observables."""
    made: dict[str, str] = {}
    for name, each in registered().items():
        if found := found_in(name, report.runs):
            made.update(each.tables(found))
    return made


def _former(folder: Path) -> set[str]:
    """Files of the figures and tables of the report that the folder holds; whatever else is there stays."""
    try:
        page = (folder / "report.html").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    if "Ionic conductivity of" not in page[:4000]:
        return set()
    names = re.findall(r"<img alt='([\w-]+)\.png'", page)
    tables = {name for each in registered().values() for name in each.files}
    return tables | {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}


def results_csv(report: Report) -> str:
    """One line per temperature; D, σ and H with their 95 % limits, and the names of those undetermined."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ["D_cm2_s", "sigma_tracer_mS_cm", "D_collective_cm2_s", "sigma_collective_mS_cm", "haven_ratio"]
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow(
        ["T_K", *columns, "fit_low_ps", "fit_high_ps", "n_ions", "volume_A3", "n_frames", "length_ps"]
        + ["undetermined"]
    )
    for run in report.runs:
        result = run.diffusion
        values = [result.tracer, run.sigma_tracer, result.collective, run.sigma_collective, result.haven]
        cells = [text for value in values for text in written.ends(value)]
        window = [f"{result.window.low_ps:.6g}", f"{result.window.high_ps:.6g}"]
        size = [run.n_ions, f"{run.volume_a3:.6f}".replace("nan", ""), run.n_frames, f"{run.length_ps:.6g}"]
        unknown = [name for name, value in zip(names, values) if value is not None and not value.determined]
        writer.writerow([f"{run.temperature_k:g}", *cells, *window, *size, " ".join(unknown)])
    return buffer.getvalue()


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
