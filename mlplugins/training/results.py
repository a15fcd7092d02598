"""Results of a finished run: predictions, metrics.json, log.csv."""

from __future__ import annotations

import copy
import csv
import platform
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from mlplugins.models.base import Potential
from mlplugins.models.composition import Composition
from mlplugins.quantities import QUANTITIES, Quantity, Results
from mlplugins.structures.batch import Batch, pack
from mlplugins.structures.dataset import Structure
from mlplugins.training.loss import Predictor

PACKAGES = ("mlplugins", "torch", "lightning", "e3nn", "ase", "numpy", "metatomic-torch", "vesin")


def predict(
    potential: Potential, structures: Sequence[Structure], graphs: Sequence[Batch], baseline: Composition
) -> list[Results]:
    """Predictions (baseline added to the energies) for structures whose batches are `graphs`."""
    device = next(chain(potential.parameters(), potential.buffers())).device
    if device.type == "cpu":
        potential = copy.deepcopy(potential)
        potential.use_native_ops()
    module = Predictor(potential)
    rows: list[Results] = []
    for batch in pack(graphs):
        predicted = module(batch.to(device), False)
        sizes = [int(n) for n in batch.n_atoms.tolist()]
        parts = {}
        for name, values in predicted.items():
            whole = QUANTITIES[name].per == "system"
            values = values.double().cpu()
            parts[name] = values.numpy() if whole else [part.numpy() for part in values.split(sizes)]
        for k in range(len(sizes)):
            s = structures[len(rows)]
            found = {name: _finished(QUANTITIES[name], parts[name][k], s, baseline) for name in parts}
            rows.append(Results.of(found))
    return rows


def _finished(quantity: Quantity, value: Any, structure: Structure, baseline: Composition) -> Any:
    """A prediction as labels are: with its baseline, over the volume (None without one)."""
    if quantity.baseline:
        value = value + baseline.predict(structure.to_atoms().get_chemical_symbols(), structure.head)
    if quantity.made:
        value = value + baseline.gap(structure.to_atoms().get_chemical_symbols(), structure.head)
    if quantity.per_volume:
        return value / structure.volume if structure.volume > 0.0 else None
    return value if quantity.full_shape(len(structure)) else float(value)


def versions() -> dict[str, str]:
    """Versions of everything that affects a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def n_parameters(potential: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in potential.parameters() if p.requires_grad)


COLUMNS = ["epoch", "step", "seconds", "lr"]


def write_log(
    path: Path,
    rows: Sequence[dict[str, float]],
    restart: bool,
    columns: Sequence[str],
    stages: Sequence[str] = (),
) -> None:
    """Append epochs to `log.csv`, or write the file anew (`restart`); absent values stay empty. Rows have the
    numbers of stages, the file their names."""
    first = [*COLUMNS, *(["stage"] if stages else [])]
    with path.open("w" if restart else "a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*first, *columns], restval="", extrasaction="ignore")
        if restart:
            writer.writeheader()
        for row in rows:
            writer.writerow({**row, "stage": stages[int(row["stage"]) - 1]} if stages else row)


def log_columns(structures: Sequence[Structure], of_heads: Collection[str] = ()) -> list[str]:
    """Columns of `log.csv` after the first four: energy and forces, and what else has labels; of what heads
    learn from the labels of others, `of_heads`."""
    shown = [
        quantity
        for name, quantity in QUANTITIES.items()
        if name in ("energy", "forces")
        or ((not quantity.learns or name in of_heads) and any(s.get(name) is not None for s in structures))
    ]
    names = ["loss", *(quantity.column(kind) for quantity in shown for kind in ("mae", "rmse"))]
    return [f"{part}_{name}" for part in ("train", "validation") for name in names]
