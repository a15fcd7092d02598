"""Train a potential on labelled structures, or continue an interrupted run.

example:
  mlplugins train config.yaml -o runs/li6ps5cl

  config.yaml:
    data: {train: train.extxyz, validation: 0.1, test: test.extxyz}
    model: {family: nequip, cutoff: 5.0}
    training: {epochs: 200, batch_size: 5, lr: 0.01}
    seed: 0

writes model.pt, checkpoint.ckpt, metrics.json, log.csv, learning.png and parity.png. If the run is killed,
the same command continues it, with the same result as if it had not been.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlplugins import files
from mlplugins.cli import _common
from mlplugins.errors import MissingDependency
from mlplugins.model_file import artifact
from mlplugins.model_file.write import save
from mlplugins.structures.metrics import MILLI
from mlplugins.training import config
from mlplugins.training.config import ClosedFormConfiguration

try:
    from mlplugins.training import solve
    from mlplugins.training.run import Trained, train
except ImportError as missing:
    if isinstance(missing, MissingDependency) or (missing.name or "").startswith("mlplugins"):
        raise
    raise MissingDependency(
        f"training needs the package '{missing.name}': pip install 'mlplugins[train]'"
    ) from missing

STEP_A = 1e-4
"""Displacement of the finite-difference check, Å."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins train`."""
    parser.add_argument("config", metavar="CONFIG.yaml")
    parser.add_argument(
        "-o",
        "--output",
        type=_common.OutputFolder,
        metavar="DIR",
        help="default: the name of the config file",
    )
    parser.add_argument(
        "--restart", action="store_true", help="begin anew although DIR holds a run (its checkpoint is kept)"
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Train; 0 if the model was written."""
    path = _common.existing_file(args.config)
    configuration = config.load(path)
    directory = args.output or _common.OutputFolder(path.stem)
    files.require_writable(directory, "-o", folder=True)
    console = _common.console(quiet=is_helper())
    with Display(console) as display:
        if isinstance(configuration, ClosedFormConfiguration):
            trained = solve.train(configuration, directory, display, args.restart)
        else:
            trained = train(configuration, directory, display, args.restart)
    if finish(trained, directory, args.json):
        console.print(_table(trained.metrics))
        console.print(summary(trained.metrics, directory), highlight=False, soft_wrap=True)
    return 0


def finish(trained: Trained, directory: Path, json: Path | None) -> bool:
    """Complete and write the metrics of a run; False in all processes but the first."""
    if trained.is_main:
        trained.metrics["finite_differences"] = finite_differences(trained)
        files.write_json(directory / "metrics.json", trained.metrics)
        files.write_json(json, trained.metrics)
    return trained.is_main


def finite_differences(trained: Trained) -> dict[str, Any]:
    """Compare forces with energy differences on the first training frame, on a float64 export of the model.

    All atoms move by ±1e-4 Å along one random direction of 3N dimensions; three single coordinates as well.
    """
    atoms = trained.sets.train[0].to_atoms()
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
        save(trained.potential, path, trained.description, "float64")
        evaluated = artifact.load(path).evaluate(moved)
    forces = np.asarray(evaluated[0].forces)
    errors = []
    for k, direction in enumerate(directions):
        change = evaluated[2 * k + 1].energy - evaluated[2 * k + 2].energy
        errors.append(abs(-change / (2 * STEP_A) - float((forces * direction).sum())))
    return {
        "frame": trained.sets.train[0].origin,
        "max_error_meV_per_A": MILLI * max(errors),
        "max_force_meV_per_A": MILLI * float(np.abs(forces).max()),
        "step_A": STEP_A,
    }


class Display:
    """Progress with the time left; on a terminal as a bar, else one line now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=None)
        self.printed = 0.0
        self.begun: tuple[float, float] | None = None

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, epoch: int, epochs: int) -> None:
        """Training begins after `epoch` of `epochs` epochs."""
        self.progress.update(self.task, completed=epoch, total=epochs)

    def epoch(self, row: dict[str, float], epochs: int, best: bool) -> None:
        """Show the errors of an epoch."""
        text = _errors(row) + (" *" if best else "")
        self.progress.update(self.task, completed=row["epoch"], description=text)
        if self.begun is None:
            self.begun = (row["epoch"], row["seconds"])
        if not self.console.is_terminal and (row["seconds"] - self.printed > 10 or row["epoch"] == epochs):
            self.printed = row["seconds"]
            self.console.print(
                f"epoch {row['epoch']:.0f}/{epochs}  {text}  {self._left(row, epochs)}",
                highlight=False,
                soft_wrap=True,
            )

    def note(self, text: str) -> None:
        """Print a remark."""
        self.progress.console.print(f"note: {text}", highlight=False, soft_wrap=True)

    def _left(self, row: dict[str, float], epochs: int) -> str:
        first, since = self.begun or (0.0, 0.0)
        if row["epoch"] <= first:
            return ""
        left = (epochs - row["epoch"]) * (row["seconds"] - since) / (row["epoch"] - first)
        return f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left"


def _errors(row: dict[str, float]) -> str:
    part = "validation" if "validation_loss" in row else "train"
    energy = row.get(f"{part}_energy_mae_meV_per_atom", float("nan"))
    forces = row.get(f"{part}_forces_mae_meV_per_A")
    shown = "" if forces is None else f", forces {forces:.3g} meV/Å"
    return f"{part} MAE: energy {energy:.3g} meV/atom{shown}"


def is_helper() -> bool:
    """Whether this process is not the first one of a parallel run."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def _table(metrics: dict[str, Any]) -> Table:
    from mlplugins.cli.evaluate import table

    return table({name: metrics[name] for name in ("train", "validation", "test") if metrics[name]})


def summary(metrics: dict[str, Any], directory: Path) -> str:
    """How the run ended, and where its model is."""
    check = metrics["finite_differences"]
    how = "" if "solver" in metrics else f"; best epoch {metrics['best_epoch']} of {metrics['epochs']}"
    return (
        f"{metrics['stopped']}{how}, "
        f"{metrics['n_parameters']} parameters, {metrics['wall_s']:.0f} s (CPU {metrics['cpu_s']:.0f} s)\n"
        f"forces = −dE/dr to {check['max_error_meV_per_A']:.1e} meV/Å by finite differences\n"
        f"{directory}/model.pt is ready for ASE, LAMMPS and i-PI"
    )
