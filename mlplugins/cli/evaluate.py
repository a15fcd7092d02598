"""Errors of a model on labelled structures: energy, forces, stress; table, JSON and parity plots.

example:
  mlplugins evaluate model.pt test.extxyz --plot parity.png --json errors.json
  mlplugins evaluate model.pt run.xyz.gz --keys energy=energy_xtb forces=forces_xtb
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from rich.progress import Progress
from rich.table import Table

from mlplugins import files, quantities
from mlplugins.cli import _common
from mlplugins.errors import BadInput, MissingDependency, nearest
from mlplugins.model_file import artifact
from mlplugins.quantities import MILLI, QUANTITIES
from mlplugins.structures import dataset, labels, validation
from mlplugins.structures.dataset import Keys, Structure
from mlplugins.structures.metrics import metrics, pairs

ATOMS_PER_CALL = 512

OFFSET_EV = 5e-3
"""Mean error of the energy per atom (eV) above which a constant is pointed out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins evaluate`."""
    parser.add_argument("model", help="model.pt, any metatomic model")
    parser.add_argument("data", nargs="+", help="files that ASE reads; file@:100 takes the first 100 frames")
    parser.add_argument(
        "--keys",
        nargs="+",
        default=[],
        metavar="LABEL=NAME",
        help="names in the files, e.g. energy=energy_xtb",
    )
    parser.add_argument("--plot", type=_common.OutputFile, metavar="PNG", help="parity plots")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate; 0 if it worked."""
    path = _common.existing_file(args.model)
    keys = parse_keys(args.keys)
    parts = {name: dataset.read(name, keys) for name in args.data}
    structures = [s for part in parts.values() for s in part]
    for part in parts.values():
        validation.check(part, keys, need_forces=any(s.forces is not None for s in part))
    labels.require_named(structures, keys, "--keys")
    labels.check_flags(structures)
    model = artifact.load(path, args.device)
    _require_known_elements(structures, model.elements)
    predicted = _evaluate(model, structures)
    result = metrics(structures, predicted)
    rows = {}
    if len(parts) > 1:
        first = 0
        for name, part in parts.items():
            rows[name] = metrics(part, predicted[first : first + len(part)])
            first += len(part)
        result["files"] = rows
    console = _common.console()
    for note in [*labels.notes(structures, keys), *_offset(structures, predicted)]:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(table({**rows, "all" if rows else args.data[0]: result}))
    if args.plot is not None:
        _plots().parity(pairs(structures, predicted), args.plot, f"{path.name}, {len(structures)} structures")
        console.print(f"parity plots: {args.plot}")
    files.write_json(args.json, result)
    return 0


def parse_keys(words: Iterable[str]) -> Keys:
    """Key mapping from `LABEL=NAME` words.

    >>> parse_keys(["energy=E0"]).energy
    'E0'
    """
    chosen: dict[str, str] = {}
    known = [label.option for label in quantities.labels()]
    for word in words:
        label, _, name = word.partition("=")
        if not name:
            raise BadInput(f"--keys: expected LABEL=NAME, got '{word}'")
        if label not in known:
            raise BadInput(f"--keys: unknown label '{label}': {nearest(label, known)}")
        chosen[label] = name
    return replace(Keys(), named=frozenset(chosen), **chosen)


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Errors as a table, one row per data set."""
    shown = [
        quantity
        for name, quantity in QUANTITIES.items()
        if name == "energy" or quantity.derivative is not None or any(row[name] for row in rows.values())
    ]
    names = ", ".join(quantity.name for quantity in shown)
    units = ", ".join(quantity.error_unit for quantity in shown)
    result = Table(title=f"errors of {names} in {units}", box=None, title_justify="left")
    result.add_column("data")
    result.add_column("frames", justify="right")
    for quantity in shown:
        for kind in ("MAE", "RMSE"):
            result.add_column(f"{quantity.symbol} {kind}", justify="right")
    for name, errors in rows.items():
        cells = [name, str(errors["n_structures"])]
        for quantity in shown:
            for kind in ("mae", "rmse"):
                found = errors[quantity.name]
                cells.append("–" if found is None else f"{found[quantity.error_key(kind)]:.2f}")
        result.add_row(*cells)
    return result


def _offset(structures: Sequence[Structure], predicted: Sequence[Any]) -> list[str]:
    """Energies that are a constant away from the labels: another reference, no error of the surface."""
    error = np.array([(p.energy - (s.energy or 0.0)) / len(s) for s, p in zip(structures, predicted)])
    mean, spread = float(error.mean()), float(error.std())
    if len(error) < 3 or abs(mean) < max(OFFSET_EV, 3 * spread):
        return []
    return [
        f"the energies differ from the labels by a constant, {MILLI * mean:+.4g} meV/atom, and by "
        f"{MILLI * spread:.3g} meV/atom (standard deviation) around it: another reference of the energy "
        "(level of theory, pseudopotentials, isolated atoms), or a model that was trained too briefly"
    ]


def _require_known_elements(structures: Sequence[Structure], elements: Sequence[str]) -> None:
    for structure in structures:
        unknown = sorted({chemical_symbols[z] for z in structure.numbers} - set(elements))
        if unknown:
            raise BadInput(
                f"{structure.origin}: the model does not know {', '.join(unknown)}; "
                f"it knows {', '.join(elements)}"
            )


def _plots() -> ModuleType:
    try:
        from mlplugins.training import plots
    except ModuleNotFoundError as missing:
        raise MissingDependency(
            f"--plot needs the package '{missing.name}': pip install 'mlplugins[analysis]'"
        ) from missing
    return plots


def _evaluate(model: artifact.Artifact, structures: Sequence[Structure]) -> list[Any]:
    """Predictions, a few structures per call so that memory stays bounded."""
    results: list[Any] = []
    console = _common.console()
    with Progress(transient=True, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluating", total=len(structures))
        for chunk in _chunks(structures):
            results.extend(model.evaluate([s.to_atoms() for s in chunk]))
            progress.update(task, completed=len(results))
    return results


def _chunks(structures: Sequence[Structure]) -> Iterable[list[Structure]]:
    waiting: list[Structure] = []
    atoms = 0
    for structure in structures:
        if waiting and atoms + len(structure) > ATOMS_PER_CALL:
            yield waiting
            waiting, atoms = [], 0
        waiting.append(structure)
        atoms += len(structure)
    if waiting:
        yield waiting
