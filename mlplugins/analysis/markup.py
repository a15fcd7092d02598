"""Tables and figures as HTML: captions, numbered over the page; an interval may stand below its number."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from itertools import count

ROWS_TOGETHER = 20
"""Rows of a table that stays on one sheet."""
Cell = str | tuple[str, str]
"""Text, or a number and its interval, which may stand below it."""


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "", css: str = "") -> str:
    """A table that keeps every column: on paper by smaller type, on a narrow screen by scrolling.

    Args:
        header: a head for each column; the part in brackets, its unit, may stand below.
        rows: cells.
        caption: what it shows; `numbered` puts "Table 1." before it. HTML.
        css: class: `stacked` puts every interval below its number, for many columns.
    """
    head = "".join(f"<th scope='col'>{_head(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    named = f"<caption>{caption}</caption>" if caption else ""
    top = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    whole = " short" if len(rows) <= ROWS_TOGETHER else ""
    return f"<div class='wide{whole}'><table class='{css}'>{named}{top}<tbody>{body}</tbody></table></div>"


def pairs(rows: Sequence[tuple[str, Cell]], caption: str = "") -> str:
    """Names with values in words."""
    return table(("", ""), rows, caption, css="text") if rows else ""


def figure(name: str, png: bytes, caption: str, share: float = 1.0) -> str:
    """A picture inside the page, as wide as `share` of it; `caption` is text."""
    code = base64.b64encode(png).decode("ascii")
    look = f"style='width:{100 * share:.0f}%'"
    image = f"<img alt='{html.escape(name)}.png' {look} src='data:image/png;base64,{code}'>"
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def numbered(page: str) -> str:
    """The page with its tables and figures numbered, each from 1.

    >>> numbered("<caption>a</caption><figcaption>b</figcaption><caption>c</caption>").count("Table 2.")
    1
    """
    for tag, word in (("caption", "Table"), ("figcaption", "Figure")):
        numbers = count(1)
        page = re.sub(f"<{tag}>", lambda _: f"<{tag}><b>{word} {next(numbers)}.</b> ", page)  # noqa: B023
    return page


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return html.escape(cell)
    middle, ends = (html.escape(text) for text in cell)
    return f"<span>{middle}</span> <span>{ends}</span>" if ends else middle


def _head(text: str) -> str:
    name, bracket, unit = text.partition(" (")
    return f"{html.escape(name)} <span>({html.escape(unit)}</span>" if bracket else html.escape(text)
