"""A whole training run: data, model, fit, metrics, files. The way of training is chosen here, by family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mlplugins import models
from mlplugins.errors import BadInput
from mlplugins.export.metatomic import DTYPES, Description
from mlplugins.export.metatomic import save as export
from mlplugins.models.base import Potential
from mlplugins.structures.batch import Batch
from mlplugins.structures.dataset import Structure
from mlplugins.structures.metrics import metrics, pairs
from mlplugins.training import checkpoint, data, plots, results
from mlplugins.training.config import Configuration
from mlplugins.training.data import DataSets
from mlplugins.training.fit import Observer, Outcome, Parts, Row, fit

CHECKPOINT = "checkpoint.ckpt"


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        potential: the model with the best averaged weights.
        description: what its exported file says about it.
        metrics: content of metrics.json.
        sets: the data.
        is_main: False in the helper processes of a parallel run, which write nothing.
    """

    potential: Potential
    description: Description
    metrics: dict[str, Any]
    sets: DataSets
    is_main: bool


def train(
    configuration: Configuration, directory: Path, observer: Observer, restart: bool = False
) -> Trained:
    """Train as configured, or continue what `directory` holds, and write model.pt, metrics.json and plots.

    Raises:
        BadInput: wrong data, hyper-parameters, or a directory that holds another run.
        RunFailed: training diverged, or a file could not be written.
    """
    sets = data.load(configuration)
    potential = build(configuration, sets)
    store = Files(directory, configuration, sets, restart)
    dtype = DTYPES[configuration.training.dtype]
    graphs = {
        name: data.graphs(getattr(sets, name), sets.baseline, potential.cutoff, dtype)
        for name in ("train", "validation", "test")
    }
    potential.initialise(data.statistics(graphs["train"]))
    store.prepare()
    for warning in sets.warnings:
        observer.note(warning)
    # Families solved in closed form will take another function of the same shape here.
    parts = Parts(
        potential.to(dtype), graphs["train"], graphs["validation"], configuration.training, configuration.seed
    )
    outcome = fit(parts, store, observer)
    trained_weights = potential.state_dict()
    potential = build(configuration, sets).to(dtype)  # on plain ops again, so that exports can choose
    potential.load_state_dict(trained_weights)
    description = _description(configuration, sets, potential, outcome)
    report = _report(configuration, sets, potential, outcome)
    trained = Trained(potential, description, report, sets, outcome.is_main)
    if outcome.is_main:
        _write(directory, configuration, trained, graphs, outcome.history)
    return trained


def build(configuration: Configuration, sets: DataSets) -> Potential:
    """A fresh model, the same for the same seed.

    Raises:
        BadInput: hyper-parameters that the family refuses, or a family without anything to train.
    """
    family = configuration.model.family
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(configuration.seed)
        potential: Potential = models.family(family).Model(sets.elements, configuration.hyperparameters)
    if results.n_parameters(potential) == 0:
        raise BadInput(f"model family '{family}' has no trainable parameters: choose another model.family")
    return potential


class Files:
    """Checkpoint and log of a run in its directory (the `Store` of `fit`)."""

    def __init__(
        self, directory: Path, configuration: Configuration, sets: DataSets, restart: bool = False
    ) -> None:
        self.path = directory / CHECKPOINT
        self.restart = restart
        self.identity: dict[str, Any] = {
            "family": configuration.model.family,
            "elements": sets.elements,
            "baseline": sets.baseline.energies,
            "hyperparameters": asdict(configuration.hyperparameters),
            "configuration": configuration.model_dump(mode="json"),
            "sha256": sets.sha256,
            "versions": results.versions(),
        }
        stress = any(s.stress is not None for s in sets.train)
        self.columns = results.log_columns(stress)

    def prepare(self) -> None:
        """Make the directory; with `restart`, set the old checkpoint aside."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"output folder {self.path.parent}: {error.strerror}") from error
        if self.restart and self.path.exists():
            self.path.replace(self.path.with_name("checkpoint.old.ckpt"))
        self.load()  # refuse a foreign checkpoint before anything is computed

    def load(self) -> dict[str, Any] | None:
        """State of the run to continue, None to begin."""
        content = checkpoint.load(self.path)
        if content is None:
            return None
        checkpoint.require_same_run(
            self.path, content, self.identity["configuration"], self.identity["sha256"]
        )
        return content["state"]

    def save(self, state: dict[str, Any]) -> None:
        """Write the checkpoint."""
        checkpoint.save(self.path, {**self.identity, "state": state})

    def log(self, rows: Sequence[Row], restart: bool) -> None:
        """Write `log.csv`."""
        results.write_log(self.path.with_name("log.csv"), rows, restart, self.columns)


def _description(
    configuration: Configuration, sets: DataSets, potential: Potential, outcome: Outcome
) -> Description:
    family = models.family(configuration.model.family)
    return Description(
        family=configuration.model.family,
        elements=sets.elements,
        baseline=sets.baseline.energies,
        name=f"{configuration.model.family} for {'-'.join(sets.elements)}",
        details={
            "hyperparameters": asdict(configuration.hyperparameters),
            "n_parameters": results.n_parameters(potential),
            "best_epoch": outcome.counters.best_epoch,
            "data": {"sha256": sets.sha256, "n_train": len(sets.train)},
            "configuration": configuration.model_dump(mode="json"),
            "versions": results.versions(),
        },
        references=list(getattr(family, "REFERENCES", [])),
    )


def _report(
    configuration: Configuration, sets: DataSets, potential: Potential, outcome: Outcome
) -> dict[str, Any]:
    counters = outcome.counters
    return {
        "family": configuration.model.family,
        "elements": sets.elements,
        "n_parameters": results.n_parameters(potential),
        "best_epoch": counters.best_epoch,
        "epochs": counters.epoch,
        "steps": counters.step,
        "stopped": counters.stopped or "all epochs done",
        "wall_s": counters.wall_s,
        "cpu_s": counters.cpu_s,
        "composition_eV": dict(zip(sets.elements, sets.baseline.energies)),
        "composition_rank": sets.baseline.rank,
        "data_sha256": sets.sha256,
        "warnings": sets.warnings,
        "versions": results.versions(),
        "configuration": configuration.model_dump(mode="json"),
    }


def _write(
    directory: Path,
    configuration: Configuration,
    trained: Trained,
    graphs: dict[str, list[Batch]],
    history: Sequence[Row],
) -> None:
    """model.pt, metrics.json (errors of every set filled in) and the plots."""
    sets, report = trained.sets, trained.metrics
    for name in ("train", "validation", "test"):
        structures: list[Structure] = getattr(sets, name)
        report[name] = None
        if structures:
            predicted = results.predict(trained.potential, structures, graphs[name], sets.baseline)
            report[name] = metrics(structures, predicted)
            shown = (structures, predicted, name)
    plots.learning_curves(history, report["best_epoch"], directory / "learning.png")
    structures, predicted, name = shown
    plots.parity(
        pairs(structures, predicted), directory / "parity.png", f"{name} set, {len(structures)} structures"
    )
    settings = configuration.export
    dtype = settings.dtype or configuration.training.dtype
    export(trained.potential, directory / "model.pt", trained.description, dtype, settings.portable)
    results.write_json(directory / "metrics.json", report)
