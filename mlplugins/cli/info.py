"""Show what a model.pt is: elements, cutoff, accuracy, data, date, licence, citation; with --all everything.

Example:
  mlplugins info potential/model.pt
  mlplugins info potential --all          # the folder of a run
  mlplugins info potential/model.pt --json info.json

Works for any metatomic model; errors, data and the training record are shown if mlplugins wrote the file.
A model.pt is a program. This command reads it without running any of its code: use it before you load a
file from an unknown source.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from mlplugins import files
from mlplugins.cli import _model_file
from mlplugins.cli._common import add_json, console

SHOWN = 200
"""Characters of a long entry of the training record."""
UNSTATED = "not stated"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins info`."""
    parser.add_argument("model", type=Path, help="model.pt, or the folder of a run")
    parser.add_argument("--all", action="store_true", help="everything that the file says of itself")
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
    for name, value in [*first(record), *(rest(record) if args.all else [])]:
        table.add_row(Text(name), Text(value))  # what a file says is no markup
    console().print(table)
    if not args.all:
        console().print("more: --all (outputs, baseline, configuration, versions), --json FILE")
    return 0


def first(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of what a user needs to know first."""
    layers = record["layers"]
    cutoff = "–" if record["cutoff_A"] is None else f"{record['cutoff_A']:g} Å"
    if layers is not None and layers > 1:
        cutoff += f"; range {record['interaction_range_A']:g} Å"
        if math.isclose(record["interaction_range_A"], layers * record["cutoff_A"]):
            cutoff += f" = {layers} layers × {record['cutoff_A']:g} Å"
    references = record["references"]
    papers = [*references.get("model", []), *references.get("architecture", [])]
    return [
        ("elements", _list(record["elements"])),
        ("cutoff", cutoff),
        *(("of a structure", text) for text in inputs(record["inputs"])),
        *[("energy", text) for text in [_energy(record)] if text],
        ("accuracy", _accuracy(record["errors"])),
        *[("uncertainty", text) for text in [_uncertainty(record)] if text],
        *[("radial functions", text) for text in [_radial(record)] if text],
        ("data", _data(record["data"]) + _subtracted(record["record"])),
        ("date", record["date"] or UNSTATED),
        ("licence", str(record["licence"] or UNSTATED)),
        ("cite", _list(papers) or UNSTATED),
        ("model", f"{_model(record)}, {record['dtype']}"),
        ("file", f"{record['file']} ({record['bytes'] / 1e6:.2f} MB)"),
    ]


def rest(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of everything else."""
    layers = record["layers"]
    lines = [
        ("name", record["name"] or "–"),
        ("authors", _list(record["authors"]) or UNSTATED),
        ("interaction range", f"{record['interaction_range_A']:g} Å"),
        ("devices", _list(record["devices"])),
        ("parameters", f"{record['parameters']:,}".replace(",", " ")),
        ("energy", "per atom" if record["energy_per_atom"] else "per structure only"),
        ("outputs", _list([f"{key} ({unit or 'no unit'})" for key, unit in record["outputs"].items()])),
    ]
    if record["family"] is not None:
        modes = "fold, ghost" + (", exchange" if record["lammps_exchange"] else "")
        lines.append(("LAMMPS modes", modes if layers and layers > 1 else "one layer: every mode"))
    if record["baseline_eV"]:
        lines.append(("baseline, eV", _list([f"{k} {v:.6g}" for k, v in record["baseline_eV"].items()])))
    for name, row in record["baselines_eV"].items():
        lines.append((f"baseline of {name}, eV", _list([f"{k} {v:.6g}" for k, v in row.items()])))
    lines.append(("extensions", _list(record["extensions"]) or "none"))
    lines.append(("written with", _list([f"{k} {v}" for k, v in record["written_with"].items()])))
    for kind, items in record["references"].items():
        lines.append((f"cite ({kind})", _list(items)))
    lines.extend(_flat(record["record"]))
    return lines


def _accuracy(errors: Any) -> str:
    """The errors of the set that says most: test, else validation, else training."""
    from mlplugins.quantities import QUANTITIES

    for name in ("test", "validation", "train"):
        found = errors.get(name) if isinstance(errors, dict) else None
        if not isinstance(found, dict):
            continue
        parts = []
        for quantity in QUANTITIES.values():
            pair = found.get(quantity.name)
            value = pair.get(quantity.error_key("mae")) if isinstance(pair, dict) else None
            if isinstance(value, int | float):
                parts.append(f"{quantity.name} {value:.3g} {quantity.error_unit}")
        what = "training" if name == "train" else name
        return f"MAE of {found.get('n_structures')} {what} frames: {', '.join(parts)}"
    return "not recorded; `mlplugins evaluate` measures it"


def _energy(record: dict[str, Any]) -> str | None:
    """That there is none, or which of several there are; None if there is one."""
    from mlplugins.model_file.card import has_no_energy

    if len(record["energies"]) > 1:
        names = record["energies"]
        first = f"energy is {_first_energy(record)}; " if _first_energy(record) else ""
        return f"several: {_list(names)} ({first}variant NAME chooses in every engine)"
    if not has_no_energy(record["record"]):
        return None
    return (
        "none was learned: energy and forces are zero; the file is for what else it predicts (--all: outputs)"
    )


def _first_energy(record: dict[str, Any]) -> str | None:
    """What the energy that comes without a choice is called, where the file says it."""
    hyperparameters = _section(record["record"], "hyperparameters")
    terms = [hyperparameters, *(hyperparameters.get("terms") or [])]
    return next((term["energy_name"] for term in terms if term.get("energy_name")), None)


def _uncertainty(record: dict[str, Any]) -> str | None:
    """What standard deviations the file predicts and where they come from; None if it predicts none."""
    if not any(name.partition("/")[0] == "energy_uncertainty" for name in record["outputs"]):
        return None
    found = record["record"].get("uncertainty")
    if isinstance(found, dict):
        held_out = found.get("n_held_out")
        return f"of the energy, {found.get('method')}, calibrated with {held_out} held-out frames"
    return f"of the energy, {'spread of the members' if record['family'] == 'committee' else 'by the family'}"


def _radial(record: dict[str, Any]) -> str | None:
    """What the file computes its radial functions with; None if it does not say."""
    text = _model_file.radial(record["record"]) if record["family"] else None
    return text and text.removeprefix("radial functions: ").removeprefix("radial ")


def _data(data: dict[str, Any] | None) -> str:
    if data is None:
        return UNSTATED
    parts = []
    for name, what in (("train", "training"), ("validation", "validation"), ("test", "test")):
        count = data.get(f"n_{name}")
        named = data["files"].get(name)
        if isinstance(named, dict):  # of several energies
            named = [f"{k}: {_list(v) if isinstance(v, list) else v}" for k, v in named.items()]
        where = _list(named) if isinstance(named, list) else named if isinstance(named, str) else None
        if count or where:
            frames = f"{count} {what}" if count else what
            parts.append(f"{frames} ({where})" if where else frames)
    texts = [f"frames: {', '.join(parts)}"] if parts else []
    source = data["source"]
    if source:
        texts.append(f"from {source.get('file', '?')} ({source.get('format', '?')})")
    return "; ".join(texts) or UNSTATED


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a record; empty if it is not there, or is something else."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _subtracted(record: dict[str, Any]) -> str:
    """What was taken off the labels before training, and is therefore missing from the model's energies."""
    section = _section(_section(_section(record, "configuration"), "data"), "subtract")
    taken = {key: value for key, value in section.items() if value}
    words = [
        f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in taken.items()
    ]
    return f"; labels less {', '.join(words)}" if words else ""


def _model(record: dict[str, Any]) -> str:
    """The family; of a sum its terms, those without parameters in full; of a committee its members."""
    name = record["family"] or _foreign(record["wraps"])
    if record["parts"]:
        name = parts(record["family"], record["parts"])
    if _section(record["record"], "hyperparameters").get("zbl") is True:
        name += " with ZBL"
    made_for = [
        f"{key.replace('_', ' ')} {value if key == 'head' else format(value, 'g')}"
        for key, value in record["made_for"].items()
    ]
    return f"{name} ({', '.join(made_for)})" if made_for else name


def parts(family: str, each: list[dict[str, Any]]) -> str:
    """The terms of a sum, or the members of a committee.

    >>> parts("committee", [{"family": "nequip"}, {"family": "sum", "terms": [{"family": "mace"}]}])
    'committee of 2: nequip; mace'
    """
    names = [" + ".join(map(term, part.get("terms") or [part])) for part in each]
    if family != "committee":
        return " + ".join(names)
    return f"committee of {len(names)}: {'; '.join(dict.fromkeys(names))}"


def inputs(known: dict[str, list[float | None]]) -> list[str]:
    """What a model takes of a structure as a whole, in words.

    >>> inputs({"charge": [-2.0, 2.0], "spin_multiplicity": [None, None]})
    ['charge (-2 to 2; 0 if it does not say)', 'spin multiplicity (any number; 1 if it does not say)']
    """
    lines = []
    for name, (low, high) in known.items():
        values = "any number" if low is None or high is None else f"{low:g} to {high:g}"
        default = {"charge": 0, "spin_multiplicity": 1}[name]
        lines.append(f"{name.replace('_', ' ')} ({values}; {default} if it does not say)")
    return lines


def term(values: dict[str, Any]) -> str:
    """One term of a sum, as `mlplugins info` and `convert` show it.

    >>> term({"family": "zbl", "inner": 0.8, "outer": 1.6}), term({"family": "nequip", "cutoff": 5.0})
    ('zbl (0.8 to 1.6 Å)', 'nequip')
    """
    family = str(values.get("family", "?"))
    if family == "d3":
        return f"d3 ({values.get('functional')}-{values.get('damping')}, {values.get('cutoff'):g} Å)"
    if family != "zbl":
        return family
    inner, outer = values.get("inner"), values.get("outer")
    return "zbl (to 0.7 of the covalent radii)" if outer is None else f"zbl ({inner:g} to {outer:g} Å)"


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
            text = value if isinstance(value, str) else json.dumps(value)
            cut = f"{text[:SHOWN]} … ({len(text)} characters; all with --json)"
            lines.append((prefix + key, text if len(text) <= 2 * SHOWN else cut))
    return lines


def _list(items: list[str]) -> str:
    return ", ".join(map(str, items))
