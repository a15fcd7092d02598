"""Numbers and tables as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mlplugins.analysis.value import UNDETERMINED, Value


def span(value: Value | None, digits: int = 3) -> str:
    """`value [low, high]` for people.

    >>> span(Value(1.234e-6, 1.0e-6, 1.5e-6, 0.1))
    '1.23e-06 [1e-06, 1.5e-06]'
    >>> span(Value(0.84, 1.7e-30, 3.7e33, 74.0))
    '0.84 [undetermined]'
    >>> span(Value(0.84, 0.05, 9.0, 1.3, limit=30.0))
    'undetermined [0.05, 9]'
    """
    if value is None:
        return "–"
    ends = f"[{value.low:.{digits}g}, {value.high:.{digits}g}]"
    if value.determined:
        return f"{value.value:.{digits}g} {ends}"
    if value.high < UNDETERMINED * value.low:
        return f"undetermined {ends}"
    return "undetermined" if value.limit < UNDETERMINED else f"{value.value:.{digits}g} [undetermined]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], css: str = "") -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table class='{css}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    return table(["", ""], rows, css="text") if rows else ""
