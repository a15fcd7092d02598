"""What is in a model.pt: elements, cutoff, precision, hyper-parameters, training record, versions.

Example:
  mlplugins info potential/model.pt
  mlplugins info potential/model.pt --json info.json

Works for any metatomic model; hyper-parameters and the training record are there if mlplugins wrote the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.table import Table

from mlplugins import files
from mlplugins.cli._common import add_json, console
from mlplugins.engines.artifact import FORMAT, Artifact, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins info`."""
    parser.add_argument("model", type=Path, help="model.pt")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the description as a table."""
    model = load(args.model)
    record = describe(model)
    files.write_json(args.json, record)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(record):
        table.add_row(name, value)
    console().print(table)
    return 0


def describe(model: Artifact) -> dict[str, Any]:
    """The public JSON record: units in the key names, null for what the file does not say."""
    record = dict(model.record)
    elements = record.pop("elements", list(model.elements))
    baseline = record.pop("baseline_eV", None)
    return {
        "file": str(model.path),
        "bytes": model.path.stat().st_size,
        "name": model.name,
        "family": model.family,
        "format": None if model.family is None else FORMAT,
        "elements": list(model.elements),
        "baseline_eV": None if baseline is None else dict(zip(elements, baseline)),
        "cutoff_A": model.cutoff,
        "layers": model.n_layers,
        "interaction_range_A": model.interaction_range,
        "dtype": model.dtype,
        "devices": list(model.devices),
        "parameters": model.n_parameters,
        "energy_per_atom": model.per_atom,
        "outputs": dict(model.outputs),
        "lammps_exchange": model.exchange_width > 0,
        "extensions": list(model.extensions),
        "written_with": dict(model.versions),
        "references": {kind: items for kind, items in model.references.items() if items},
        "record": record,
    }


def rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each line of the table."""
    layers = record["layers"]
    reach = f"{record['interaction_range_A']:g} Å"
    if layers is not None:
        reach += f" = {layers} layer{'s' if layers > 1 else ''} × {record['cutoff_A']:g} Å"
    lines = [
        ("file", f"{record['file']} ({record['bytes'] / 1e6:.2f} MB)"),
        ("name", record["name"] or "–"),
        ("family", record["family"] or "not written by mlplugins (general metatomic model)"),
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
