"""The end of every run: forces compared with energy differences, and metrics.json."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mlplugins import files
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.model_file.write import save
from mlplugins.quantities import MILLI
from mlplugins.training.run import Trained

WRITTEN = ("model.pt", "checkpoint.ckpt", "metrics.json", "log.csv")
STEP_A = 1e-4
"""Displacement of the finite-difference check, Å."""


def output_folder(directory: Path | str | None, configuration: Any, inputs: Any = ()) -> Path:
    """`directory`, or the name of the configuration file in the working directory; it can be written to.

    Args:
        directory: as the user named it.
        configuration: file or content.
        inputs: what is read, as `files.named_in` finds it.

    Raises:
        BadInput: it cannot, there is neither, or one of the inputs would be overwritten.
    """
    if directory is None:
        if not isinstance(configuration, str | os.PathLike):
            raise BadInput("directory: expected a folder for the results, got None")
        directory = Path(configuration).stem
    files.require_writable(Path(directory), "directory", folder=True, inputs=inputs, written=WRITTEN)
    return Path(directory)


def completed(trained: Trained, directory: Path) -> Trained:
    """Add the finite differences to the metrics of a run and write `metrics.json`, in its first process."""
    if trained.is_main and "finite_differences" not in trained.metrics:  # else finished before
        trained.metrics["finite_differences"] = finite_differences(trained)
        files.write_json(directory / "metrics.json", trained.metrics)
    return trained


def finite_differences(trained: Trained) -> dict[str, Any]:
    """Compare forces with energy differences on the first training frame of several atoms, in float64.

    All atoms move by ±1e-4 Å along one random direction of 3N dimensions; three single coordinates as well.
    """
    train = trained.sets.train
    frame = next((s for s in train if len(s) > 1), train[0])
    atoms = frame.to_atoms()
    rng = np.random.default_rng(0)
    directions = [rng.normal(size=(len(atoms), 3))]
    for place in rng.choice(3 * len(atoms), size=min(3, 3 * len(atoms)), replace=False):
        directions.append(np.zeros((len(atoms), 3)))
        directions[-1].flat[place] = 1.0
    directions[0] /= np.linalg.norm(directions[0])
    moved = [atoms]
    for direction in directions:
        for sign in (1, -1):
            other = atoms.copy()
            other.positions += sign * STEP_A * direction
            moved.append(other)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float64.pt"
        save(trained.potential, path, trained.card, "float64")
        evaluated = artifact.load(path).evaluate(moved)
    forces = np.asarray(evaluated[0].forces)
    errors = []
    for k, direction in enumerate(directions):
        change = evaluated[2 * k + 1].energy - evaluated[2 * k + 2].energy
        errors.append(abs(-change / (2 * STEP_A) - float((forces * direction).sum())))
    return {
        "frame": frame.origin,
        "max_error_meV_per_A": MILLI * max(errors),
        "max_force_meV_per_A": MILLI * float(np.abs(forces).max()),
        "step_A": STEP_A,
    }
