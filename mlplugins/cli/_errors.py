"""Errors of a model as a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from mlplugins.quantities import QUANTITIES


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Errors as a table, one row per data set: energy, its derivatives, and other quantities with labels."""
    labelled = [name for name in QUANTITIES if any(row.get(name) for row in rows.values())]
    always = ("energy", "forces", "stress") if "energy" in labelled or not labelled else ()
    shown = [quantity for name, quantity in QUANTITIES.items() if name in labelled or name in always]
    names = ", ".join(quantity.name for quantity in shown)
    units = ", ".join(quantity.error_unit for quantity in shown)
    result = Table(title=f"errors of {names} in {units}", box=None, title_justify="left")
    result.add_column("data")
    result.add_column("frames", justify="right")
    columns = [(quantity, part.name) for quantity in shown for part in quantity.parts]
    columns += [(quantity, "") for quantity in shown if not quantity.parts]
    columns.sort(key=lambda column: shown.index(column[0]))
    for quantity, part in columns:
        for kind in ("MAE", "RMSE"):
            result.add_column(" ".join(filter(None, (quantity.symbol, part, kind))), justify="right")
    for name, errors in rows.items():
        cells = [name, str(errors["n_structures"])]
        for quantity, part in columns:
            found = errors.get(quantity.name)
            found = found[part] if found and part else found
            for kind in ("mae", "rmse"):
                cells.append("–" if found is None else f"{found[quantity.error_key(kind)]:.2f}")
        result.add_row(*cells)
    return result


def by_element(rows: dict[str, dict[str, Any]]) -> Table:
    """Errors of the quantities that every atom has, one row per element."""
    shown = [q for q in QUANTITIES.values() if any(q.name in row for row in rows.values())]
    names, units = ", ".join(q.name for q in shown), ", ".join(q.error_unit for q in shown)
    title = f"errors per element of {names} in {units}"
    result = Table(title=title, box=None, title_justify="left", min_width=len(title))
    for name in ("element", "atoms", *(f"{q.symbol} {kind}" for q in shown for kind in ("MAE", "RMSE"))):
        result.add_column(name, justify="left" if name == "element" else "right")
    for symbol, errors in rows.items():
        cells = [symbol, str(errors["n_atoms"])]
        for quantity in shown:
            found = errors.get(quantity.name)
            for kind in ("mae", "rmse"):
                cells.append("–" if found is None else f"{found[quantity.error_key(kind)]:.2f}")
        result.add_row(*cells)
    return result


def quality(rows: dict[str, dict[str, Any]], title: str) -> Table:
    """How good predicted standard deviations are, one row per quantity."""
    result = Table(title=f"predicted uncertainty {title}", box=None, title_justify="left")
    for name in ("", "values", "rms z", "in 68 %", "in 95 %", "RLL %", "of an exact σ", "Spearman"):
        result.add_column(name, justify="right" if name else "left")
    for name, found in rows.items():
        shares = (f"{100 * found[key]:.0f} %" for key in ("coverage_68", "coverage_95"))
        rank = "–" if found["spearman"] is None else f"{found['spearman']:.2f}"
        rll = (f"{found[key]:.0f}" for key in ("rll_percent", "rll_exact_percent"))
        cells = (f"{found['z_rms']:.2f}", *shares, *rll, rank)
        result.add_row(name, str(found["n"]), *cells)
    return result
