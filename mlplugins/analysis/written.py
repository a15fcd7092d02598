"""What every report's folder is made of: figures as PNG and PDF, tables as CSV, in whole files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlplugins import files
from mlplugins.analysis.page import Drawn
from mlplugins.analysis.value import Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(
    pictures: Mapping[str, Figure], share: float | None = None
) -> tuple[dict[str, Drawn], dict[str, bytes]]:
    """The figures for the page, and their files by name; `share` of the page's width (default: their own)."""
    from mlplugins import plotting  # matplotlib only when a report is wanted

    shown: dict[str, Drawn] = {}
    contents: dict[str, bytes] = {}
    for name, picture in pictures.items():
        width = share or min(1.0, picture.get_figwidth() / plotting.PAGE)
        shown[name] = Drawn(plotting.rendered(picture), str(picture.get_label()), width)
        contents[f"{name}.png"] = shown[name].png
        contents[f"{name}.pdf"] = plotting.rendered(picture, "pdf")
    return shown, contents


def csv_table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    r"""A table with a line of names above it.

    >>> csv_table(["a", "b"], [(1, "x, y")])
    'a,b\n1,"x, y"\n'
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return buffer.getvalue()


def ends(value: Value | None) -> list[str]:
    """A value and its limits as cells, empty where there is none.

    >>> ends(Value(2e-6, 1e-6, 4e-6, 0.3)), ends(None)
    (['2e-06', '1e-06', '4e-06'], ['', '', ''])
    """
    if value is None:
        return ["", "", ""]
    return [f"{number:.6g}" for number in (value.value, value.low, value.high)]


def write(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write the files into the folder; their paths."""
    for name, data in contents.items():
        files.write_bytes(folder / name, data)
    return [folder / name for name in contents]
