"""What a finished run leaves: predictions, metrics.json, log.csv."""

from __future__ import annotations

import copy
import csv
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mlplugins.models.base import Potential
from mlplugins.models.composition import Composition
from mlplugins.structures.batch import Batch
from mlplugins.structures.dataset import Structure
from mlplugins.training.data import pack
from mlplugins.training.loss import EnergyForces

PACKAGES = ("mlplugins", "torch", "lightning", "e3nn", "ase", "numpy", "metatomic-torch", "vesin")


class Predicted(NamedTuple):
    """One structure: eV, eV/Å (N, 3), eV/Å³ (3, 3) or None without a volume."""

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None


def predict(
    potential: Potential, structures: Sequence[Structure], graphs: Sequence[Batch], baseline: Composition
) -> list[Predicted]:
    """Energies (baseline added), forces and stress of structures whose batches are `graphs`."""
    device = next(chain(potential.parameters(), potential.buffers())).device
    if device.type == "cpu":
        potential = copy.deepcopy(potential)
        potential.use_native_ops()
    module = EnergyForces(potential)
    rows: list[Predicted] = []
    for batch in pack(graphs):
        predicted = module(batch.to(device), False)
        sizes = [int(n) for n in batch.n_atoms.tolist()]
        forces = predicted.forces.double().cpu().split(sizes)
        energies, virials = predicted.energy.double().cpu(), predicted.virial.double().cpu().numpy()
        for e, f, w in zip(energies.tolist(), forces, virials, strict=True):
            s = structures[len(rows)]
            offset = baseline.predict(s.to_atoms().get_chemical_symbols())
            volume = s.volume
            rows.append(Predicted(e + offset, f.numpy(), w / volume if volume > 0.0 else None))
    return rows


def versions() -> dict[str, str]:
    """Versions of everything that shapes a result."""
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


def write_log(path: Path, rows: Sequence[dict[str, float]], restart: bool, columns: Sequence[str]) -> None:
    """Append epochs to `log.csv`, or write the file anew (`restart`); absent values stay empty."""
    with path.open("w" if restart else "a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*COLUMNS, *columns], restval="", extrasaction="ignore")
        if restart:
            writer.writeheader()
        writer.writerows(rows)


def log_columns(stress: bool) -> list[str]:
    """Columns of `log.csv` after the first four."""
    quantities = ["energy_{}_meV_per_atom", "forces_{}_meV_per_A"] + ["stress_{}_meV_per_A3"] * stress
    names = ["loss", *(q.format(kind) for q in quantities for kind in ("mae", "rmse"))]
    return [f"{part}_{name}" for part in ("train", "validation") for name in names]
