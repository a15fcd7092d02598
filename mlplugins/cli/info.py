"""Show what a model.pt contains: elements, cutoff, precision, hyper-parameters, training record, versions.

Example:
  mlplugins info potential/model.pt
  mlplugins info potential/model.pt --json info.json

Works for any metatomic model; hyper-parameters and the training record are shown if mlplugins wrote the file.
A model.pt is a program. This command reads it without running any of its code: use it before you load a
file from an unknown source.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mlplugins import files
from mlplugins.cli._common import add_json, console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins info`."""
    parser.add_argument("model", type=Path, help="model.pt")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the description as a table."""
    from rich.table import Table
    from rich.text import Text

    from mlplugins.workflows.info import info

    record = info(args.model)
    files.write_json(args.json, record)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(record):
        table.add_row(Text(name), Text(value))  # what a file says is no markup
    console().print(table)
    return 0


def rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each line of the table."""
    layers = record["layers"]
    reach = f"{record['interaction_range_A']:g} Å"
    if layers is not None:
        reach += f" = {layers} layer{'s' if layers > 1 else ''} × {record['cutoff_A']:g} Å"
    lines = [
        ("file", f"{record['file']} ({record['bytes'] / 1e6:.2f} MB)"),
        ("name", record["name"] or "–"),
        ("family", record["family"] or _foreign(record["wraps"])),
        ("elements", _list(record["elements"])),
        ("interaction range", reach),
        ("precision", f"{record['dtype']}, on {', '.join(record['devices'])}"),
        ("parameters", f"{record['parameters']:,}".replace(",", " ")),
        ("energy", "per atom" if record["energy_per_atom"] else "per structure only"),
        ("outputs", _list([f"{key} ({unit or 'no unit'})" for key, unit in record["outputs"].items()])),
    ]
    if record["family"] is not None:
        modes = "fold, ghost" + (", exchange" if record["lammps_exchange"] else "")
        lines.append(("LAMMPS modes", modes if layers and layers > 1 else "one layer: every mode"))
    if record["baseline_eV"]:
        lines.append(("baseline, eV", _list([f"{k} {v:.6g}" for k, v in record["baseline_eV"].items()])))
    lines.append(("extensions", _list(record["extensions"]) or "none"))
    lines.append(("written with", _list([f"{k} {v}" for k, v in record["written_with"].items()])))
    for kind, items in record["references"].items():
        lines.append((f"cite ({kind})", _list(items)))
    lines.extend(_flat(record["record"]))
    return lines


def _foreign(inside: str | None) -> str:
    if inside is None:
        return "not written by mlplugins (general metatomic model)"
    return f"a wrapper around a model of mlplugins ({inside}): runs as a general metatomic model"


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines.extend(_flat(value, f"{prefix}{key}."))
        else:
            lines.append((prefix + key, value if isinstance(value, str) else json.dumps(value)))
    return lines


def _list(items: list[str]) -> str:
    return ", ".join(map(str, items))
