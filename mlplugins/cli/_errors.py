"""Errors of a model as a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table

COLUMNS = {
    "energy": ("meV_per_atom", "E"),
    "forces": ("meV_per_A", "F"),
    "stress": ("meV_per_A3", "σ"),
}


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Errors as a table, one row per data set."""
    units = "meV/atom, meV/Å, meV/Å³"
    result = Table(title=f"errors of energy, forces, stress in {units}", box=None, title_justify="left")
    result.add_column("data")
    result.add_column("frames", justify="right")
    for _, title in COLUMNS.values():
        for kind in ("MAE", "RMSE"):
            result.add_column(f"{title} {kind}", justify="right")
    for name, errors in rows.items():
        cells = [name, str(errors["n_structures"])]
        for quantity, (unit, _) in COLUMNS.items():
            for kind in ("mae", "rmse"):
                found = errors[quantity]
                cells.append("–" if found is None else f"{found[f'{kind}_{unit}']:.2f}")
        result.add_row(*cells)
    return result
