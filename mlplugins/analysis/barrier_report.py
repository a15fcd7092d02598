"""The files of a report on a migration barrier: the figure, CSV tables and the page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlplugins import __version__
from mlplugins.analysis import written
from mlplugins.analysis.barrier import Barrier
from mlplugins.analysis.markup import Cell, figure, numbered, pairs, table
from mlplugins.analysis.page import STYLE, warnings_box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ATOMS = 10
METHODS = (
    "The minimum-energy path was found by the {climbing}nudged elastic band method with improved tangents "
    "[1{two}], from the image-dependent pair potential [3], with {count} images between two relaxed end "
    "points, in {engine}. Forces on the saddle are below {fmax:g} eV/Å. Energies between images are cubics "
    "with the forces along the path."
)
VINEYARD = " The attempt frequency is that of harmonic transition-state theory [4]."
REFERENCES = (
    "G. Henkelman, H. Jónsson, J. Chem. Phys. 113, 9978 (2000), 10.1063/1.1323224.",
    "G. Henkelman, B. P. Uberuaga, H. Jónsson, J. Chem. Phys. 113, 9901 (2000), 10.1063/1.1329672.",
    "S. Smidstrup, A. Pedersen, K. Stokbro, H. Jónsson, J. Chem. Phys. 140, 214106 (2014), "
    "10.1063/1.4878664.",
    "G. H. Vineyard, J. Phys. Chem. Solids 3, 121 (1957), 10.1016/0022-3697(57)90059-8.",
)


def write_report(found: Barrier, folder: Path) -> list[Path]:
    """Write profile.png and .pdf, images.csv, profile.csv and report.html."""
    from mlplugins import plotting  # matplotlib only when a report is wanted

    with plotting.style():
        picture = profile_figure(found)
        png, pdf = plotting.rendered(picture), plotting.rendered(picture, "pdf")
    contents = {
        "profile.png": png,
        "profile.pdf": pdf,
        "images.csv": _images_csv(found).encode(),
        "profile.csv": _profile_csv(found).encode(),
        "report.html": page(found, png, str(picture.get_label())).encode(errors="backslashreplace"),
    }
    return written.write(folder, contents)


def rows(found: Barrier) -> list[tuple[str, str]]:
    """The numbers in words: barriers with the spread of a committee, reaction energy, frequencies."""
    spread = found.spread or (None, None)
    lines = [
        ("barrier", electronvolts(found.forward, spread[0])),
        ("barrier of the way back", electronvolts(found.backward, spread[1])),
        ("reaction energy", electronvolts(found.reaction)),
    ]
    if found.modes is not None:
        imaginary = ", ".join(f"{nu:.2f} THz" for nu in found.modes.imaginary_thz) or "none"
        lines.append(("imaginary modes of the saddle", imaginary))
        attempt = found.modes.attempt_thz
        lines.append(("attempt frequency", f"{attempt:.3g} THz" if np.isfinite(attempt) else "undetermined"))
    return lines


def electronvolts(value: float, spread: float | None = None) -> str:
    """To 0.1 meV, or to two digits of the spread.

    >>> electronvolts(0.31416), electronvolts(0.31415, 0.012)
    ('0.3142 eV', '0.314 ± 0.012 eV')
    """
    if spread is None or spread <= 0:
        return f"{round(value, 4) + 0.0:.4f} eV"  # not -0.0000
    places = int(np.clip(1 - np.floor(np.log10(spread)), 0, 4))
    return f"{value:.{places}f} ± {spread:.{places}f} eV"


def profile_figure(found: Barrier) -> Figure:
    """Energies of the images, the spline, the saddle; every model of a committee as a thin line."""
    from mlplugins import plotting

    profile = found.profile
    spread = found.spread is not None
    bars = found.uncertainties is not None
    caption = "Energy along the path: images (points), and the cubic with the forces along the path (line)."
    caption += " Grey: the models of the committee." if spread else ""
    caption += " Bars: standard deviation of each energy, as the model predicts it." if bars else ""
    picture = plotting.canvas(0.7 * plotting.PAGE, 2.8, caption)
    axes = picture.subplots()
    s, energies = profile.coordinate, profile.relative
    for member in found.members:
        axes.plot(s, member - member[0], "-", color=plotting.GREY, lw=0.6, alpha=0.7)
    axes.plot(*profile.curve(), color=plotting.BLUE)
    axes.errorbar(s, energies, found.uncertainties, fmt="o", color=plotting.BLUE, capsize=2)
    top = profile.top
    axes.plot(s[top], energies[top], "o", ms=7, mfc="none", color=plotting.ORANGE)
    axes.annotate(
        rows(found)[0][1],
        (s[top], energies[top]),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=plotting.ORANGE,
    )
    axes.margins(y=0.15)
    axes.set(xlabel="path (Å)", ylabel="energy (eV)")
    plotting.finish(axes)
    return picture


def page(found: Barrier, png: bytes, caption: str) -> str:
    """One page of the design of the conductivity report."""
    title = f"Migration barrier in {found.formula}"
    mark = "" if found.quotable else "<p class='mark'>Not quotable while the warnings below stand</p>"
    headline = f"<p>barrier = {html.escape(rows(found)[0][1])}</p>"
    numbers: list[tuple[str, Cell]] = [(name, value) for name, value in rows(found)]
    body = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1><small>mlplugins {html.escape(__version__)}</small>",
        f"<div class='key'>{mark}{headline}</div>",
        warnings_box(found.warnings),
        "<h2>Results</h2>",
        pairs(numbers, f"The path of {len(found.images)} images, {found.engine}, {found.steps} steps."),
        figure("profile", png, caption, 0.7),
        _images(found),
        _moves(found),
        "<h2>Assumptions</h2>",
        pairs([(name, value) for name, value in found.assumptions], "What went into the numbers."),
        "<h2>Methods (to paste)</h2>",
        _methods(found),
        "</body></html>\n",
    ]
    return numbered("\n".join(body))


def _images(found: Barrier) -> str:
    profile = found.profile
    head = ["image", "path (Å)", "energy (eV)", "residual force (eV/Å)"]
    more = [("uncertainty (eV)", found.uncertainties)] if found.uncertainties is not None else []
    columns = [profile.coordinate, profile.relative, profile.residuals(), *(values for _, values in more)]
    formats = ["{:.3f}", "{:.4f}", "{:.4f}", "{:.2g}"]
    lines: list[list[Cell]] = []
    for m in range(len(found.images)):
        name = f"{m}, saddle" if m == profile.top else str(m)
        lines.append(
            [name, *(f.format(round(float(column[m]), 4) + 0.0) for f, column in zip(formats, columns))]
        )
    caption = (
        "The images. Residual: what an optimisation of the path brings to zero, across the path, of the "
        "saddle and the end points all of it, on the worst atom."
    )
    return table([*head, *(name for name, _ in more)], lines, caption)


def _moves(found: Barrier) -> str:
    lines: list[list[Cell]] = [[f"{k}", symbol, f"{far:.2f}"] for k, symbol, far in found.moves[:MOST_ATOMS]]
    more = f" The first {MOST_ATOMS} of {len(found.moves)}." if len(found.moves) > MOST_ATOMS else ""
    caption = f"Atoms that move by more than 0.3 Å from end to end.{more}"
    return table(["atom", "element", "distance (Å)"], lines, caption)


def _methods(found: Barrier) -> str:
    text = METHODS.format(
        climbing="climbing-image " if found.climb else "",
        two=", 2" if found.climb else "",
        count=len(found.images) - 2,
        engine=found.engine,
        fmax=found.fmax,
    )
    text += VINEYARD if found.modes is not None else ""
    cited = REFERENCES if found.modes is not None else REFERENCES[:3]
    return f"<p>{html.escape(text)}</p><ol>{''.join(f'<li>{html.escape(each)}</li>' for each in cited)}</ol>"


def _images_csv(found: Barrier) -> str:
    profile = found.profile
    columns = {
        "path_A": profile.coordinate,
        "energy_eV": profile.relative,
        "residual_eV_A": profile.residuals(),
    }
    if found.uncertainties is not None:
        columns["uncertainty_eV"] = found.uncertainties
    for k, member in enumerate(found.members):
        columns[f"model_{k}_eV"] = member - member[0]
    lines = ([m, *(f"{column[m]:.8g}" for column in columns.values())] for m in range(len(found.images)))
    return written.csv_table(["image", *columns], lines)


def _profile_csv(found: Barrier) -> str:
    return written.csv_table(
        ["path_A", "energy_eV"], ([f"{x:.6g}", f"{e:.6g}"] for x, e in zip(*found.profile.curve()))
    )
