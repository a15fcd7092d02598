"""The one style of every figure: sizes and type as journals print them, colours that the colour-blind tell
apart, PNG and PDF.

    with plotting.style():
        figure = plotting.canvas(plotting.PAGE, 2.6, "What it shows.")
        axes = figure.subplots()
        ...
        plotting.finish(axes)
        plotting.save(figure, path)  # path.png and path.pdf
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterSciNotation, LogLocator

from mlplugins import files
from mlplugins.errors import BadInput

COLUMN, PAGE = 3.4, 7.0
"""Widths of a figure in one and in two columns of a journal, inches."""
DPI = 300
PLAIN = (1.0, 1e4)
"""Logarithmic axes between these have numbers without powers of ten."""
KINDS = ("png", "pdf", "svg")
INK, GREY, GRID = "#222222", "#777777", "#e6e6e6"
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
"""M. Okabe and K. Ito's palette."""
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER)
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # text stays text
}


def style() -> AbstractContextManager[None]:
    """In force while figures are drawn and written."""
    context: AbstractContextManager[None] = mpl.rc_context(STYLE)
    return context


def canvas(width: float, height: float, caption: str = "") -> Figure:
    """An empty figure in inches that can be written to a file; reports print `caption` below it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.set_label(caption)
    FigureCanvasAgg(figure)
    return figure


def colors(count: int) -> list[Any]:
    """Dark to light for ordered things such as temperatures, without the pale end of the map."""
    return [colormaps["plasma"](value) for value in np.linspace(0.05, 0.78, max(count, 2))][:count]


def letters(panels: Sequence[Any]) -> None:
    """(a), (b), … above the panels, before their titles."""
    for letter, axes in zip("abcdefgh", panels):
        title = axes.get_title(loc="left")
        axes.set_title(f"({letter})  {title}".rstrip(), loc="left")


def finish(axes: Any, keep_top: bool = False) -> None:
    """Frame, grid and numbers of the axes."""
    axes.spines["right"].set_visible(False)
    axes.spines["top"].set_visible(keep_top)
    axes.grid(True, color=GRID, lw=0.5)
    axes.set_axisbelow(True)
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            axis.set_major_locator(LogLocator(numticks=12))
            low, high = axis.get_view_interval()
            plain = low >= PLAIN[0] and high <= PLAIN[1]
            if plain:
                axis.set_major_formatter(LogFormatter())
            # less than a decade may hold no power of ten
            minor = LogFormatter if plain else LogFormatterSciNotation
            axis.set_minor_formatter(minor(minor_thresholds=(1.0, 0.6)))


def rendered(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a file (`png`, `pdf`, `svg`); without dates, so that equal results give equal files.

    Its parts are laid out the first time: finding their places takes as long as drawing them.
    """
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    figure.set_layout_engine("none")
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a picture as the path's suffix says (`KINDS`), without one as PNG and PDF."""
    if path.suffix:
        files.write_bytes(path, rendered(figure, path.suffix.lower().removeprefix(".")))
        return
    for kind in ("png", "pdf"):
        files.write_bytes(path.with_suffix(f".{kind}"), rendered(figure, kind))


def require_writable(path: Path, what: str) -> None:
    """Refuse a picture that cannot be written, or whose suffix names no format.

    Raises:
        BadInput: beginning with `what`, the option.
    """
    if path.suffix.lower().removeprefix(".") not in KINDS:
        raise BadInput(f"{what} {path}: expected a name that ends in .{', .'.join(KINDS)}")
    files.require_writable(path, what)
