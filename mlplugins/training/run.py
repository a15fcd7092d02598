"""A whole run of gradient training: data, model, fit, metrics, files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mlplugins import models
from mlplugins.checkpoints import added, native
from mlplugins.checkpoints.added import Term
from mlplugins.errors import BadInput
from mlplugins.model_file.card import RADIAL, ModelCard
from mlplugins.model_file.doubts import CLOSEST
from mlplugins.model_file.precision import DTYPES
from mlplugins.model_file.radial import RadialTables
from mlplugins.model_file.write import save as export
from mlplugins.models._bounded import like_this_machine
from mlplugins.models.base import Potential
from mlplugins.models.composition import Composition
from mlplugins.quantities import with_derivatives
from mlplugins.structures import explanation, nearest, validation
from mlplugins.structures.batch import Batch
from mlplugins.structures.dataset import Structure
from mlplugins.structures.metrics import metrics, of_energies, pairs_of_energies
from mlplugins.training import checkpoint, data, is_helper, loggers, plots, references, results
from mlplugins.training.asked import require_learnable
from mlplugins.training.config import Configuration, RunConfiguration
from mlplugins.training.data import DataSets
from mlplugins.training.fit import Outcome, Parts, Row, TrainingObserver, fit

CHECKPOINT = "checkpoint.ckpt"
METRICS = "metrics.json"


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        potential: the model with the best averaged weights.
        card: what its exported file says about it.
        metrics: content of metrics.json.
        sets: the data.
        is_main: False in the helper processes of a parallel run, which write nothing.
    """

    potential: Potential
    card: ModelCard
    metrics: dict[str, Any]
    sets: DataSets
    is_main: bool


def train(
    configuration: Configuration, directory: Path, observer: TrainingObserver, restart: bool = False
) -> Trained:
    """Train by gradients, or continue the run in `directory`, and write model.pt and plots.

    Raises:
        BadInput: wrong data, hyper-parameters, or a directory that holds another run.
        RunFailed: training diverged, or a file could not be written.
    """
    sets = data.load(configuration)
    potential = build(configuration, sets)
    sets = require_learnable(configuration, sets, potential.predicts, potential.inputs)
    family = configuration.model.family
    papers = models.family(family).references
    card = first_card(configuration, sets, family, asdict(configuration.hyperparameters), papers)
    added.require_possible(potential, card, configuration.added)
    before = None if restart else finished_before(directory, configuration, sets, observer)
    if before is not None:
        return before
    dtype = DTYPES[configuration.training.dtype]
    graphs = {
        name: data.graphs(structures, sets.baseline, potential.cutoff, dtype)
        for name, structures in named_sets(sets).items()
    }
    record = Record(configuration, sets, graphs, card)
    store = Files(directory, record, restart)
    statistics = data.statistics(graphs["train"], len(sets.elements), potential.variants)
    potential.initialise(statistics)
    potential.initialise_heads(statistics)
    store.prepare()
    for warning in sets.warnings:
        observer.note(warning)
    given = potential.to(dtype), graphs["train"], graphs["validation"], configuration.training
    outcome = fit(Parts(*given, configuration.seed, statistics.labels), store, observer)
    trained_weights = potential.state_dict()
    potential = build(configuration, sets).to(dtype)  # on plain ops again, so that exports can choose
    potential.load_state_dict(trained_weights)
    record = settled(record, potential, store, observer)
    return finished(record, directory, potential, outcome)


def finished_before(
    directory: Path, configuration: RunConfiguration, sets: DataSets, observer: TrainingObserver
) -> Trained | None:
    """The run in `directory`, if it has ended with this configuration and these data; None: there is work."""
    if not all((directory / name).is_file() for name in (METRICS, "model.pt", CHECKPOINT)) or is_helper():
        return None
    try:
        report = json.loads((directory / METRICS).read_text(encoding="utf-8"))
        same = checkpoint.is_same(report["configuration"], configuration.model_dump(mode="json"))
        if not (same and report["data_sha256"] == sets.sha256 and report["finite_differences"]):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    found = native.read(directory / CHECKPOINT)
    observer.note(
        "this run is finished, nothing is done again: a larger training.epochs continues it, --restart "
        "begins anew"
    )
    return Trained(found.potential, found, report, sets, is_main=True)


def build(configuration: Configuration, sets: DataSets) -> Potential:
    """A fresh model, the same for the same seed.

    Raises:
        BadInput: hyper-parameters that the family refuses, or a family without anything to train.
    """
    family = configuration.model.family
    if family == "committee":
        raise BadInput(
            "model.family 'committee': its members are trained apart: configure one of them, and `mlplugins "
            "train --committee 4` trains four with different seeds and joins them"
        )
    with torch.random.fork_rng(devices=[]), like_this_machine("model"):
        torch.manual_seed(configuration.seed)
        potential: Potential = models.family(family).Model(sets.elements, configuration.hyperparameters)
    if results.n_parameters(potential) == 0:
        raise BadInput(f"model family '{family}' has no trainable parameters: choose another model.family")
    return potential


@dataclass(frozen=True)
class Record:
    """The record of a run before its first step.

    Attributes:
        configuration: all of it.
        sets: the data.
        graphs: of every set, by name, at the cutoff of the model that is written.
        card: of the model that is written, as far as it is known.
    """

    configuration: RunConfiguration
    sets: DataSets
    graphs: dict[str, list[Batch]]
    card: ModelCard


def first_card(
    configuration: RunConfiguration,
    sets: DataSets,
    family: str,
    hyperparameters: dict[str, Any],
    references: list[str],
    known: nearest.Pairs | None = None,
    **details: Any,
) -> ModelCard:
    """The card of the model that a run will write; `known`: how close elements came in training before."""
    described = {"hyperparameters": hyperparameters, "configuration": configuration.model_dump(mode="json")}
    if found := nearest.joined([nearest.shortest(sets.train), known or {}]):
        details["data"] = {CLOSEST: {pair: round(r, 4) for pair, r in found.items()}}
    return ModelCard(
        family,
        sets.elements,
        sets.baseline.energies,
        f"{family} for {'-'.join(sets.elements)}",
        {**described, **details},
        references,
        dict(sets.baseline.others),
    )


def settled(record: Record, potential: Potential, store: Files, observer: TrainingObserver) -> Record:
    """The run with a baseline refitted beneath the trained model, in its checkpoint too.

    Energies per element that the configuration gives stay; a constant beside them is pointed out.
    """
    sets, graphs = record.sets, record.graphs["train"]
    predicted = results.predict(potential, sets.train, graphs, sets.baseline)
    found, coupled = [p.energy for p in predicted], record.configuration.coupled
    baseline, notes = references.settle_each(sets.train, found, sets.baseline, coupled)
    if record.configuration.data.baseline != "fit":
        baseline = sets.baseline
        notes = [
            note.partition(": it went")[0]
            + "; data.baseline is kept as given: leave it out to have it fitted, or train longer"
            for note in notes
        ]
    odd = explanation.unfollowed(sets.train, predicted), explanation.kinetic(sets.train, predicted)
    notes += [text for text in odd if text]
    for note in notes:
        observer.note(note)
    store.rebase(baseline)
    warnings = [*sets.warnings, *notes]
    card = replace(record.card, baseline=baseline.energies, baselines=dict(baseline.others))
    return replace(record, sets=replace(sets, baseline=baseline, warnings=warnings), card=card)


def finished(record: Record, directory: Path, potential: Potential, outcome: Outcome) -> Trained:
    """Write the results of a run, model.pt and the plots, and gather its metrics (`ending` writes them).

    Args:
        record: the run.
        directory: where to.
        potential: the trained model, on plain ops.
        outcome: of `fit`.
    """
    card = _card(record, potential, outcome)
    report = _report(record, potential, outcome)
    trained = Trained(potential, card, report, record.sets, outcome.is_main)
    return _written(directory, trained, record, outcome.history) if outcome.is_main else trained


class Files:
    """Checkpoint and log of a run in its directory (the `Store` of `fit`).

    Args:
        directory: of the run.
        record: the run.
        restart: set an old checkpoint aside and begin anew.
        more: further entries of the checkpoint.
    """

    def __init__(
        self, directory: Path, record: Record, restart: bool = False, more: dict[str, Any] | None = None
    ) -> None:
        self.path = directory / CHECKPOINT
        self.restart = restart
        sets = record.sets
        self.identity: dict[str, Any] = {
            "family": record.card.family,
            "elements": record.card.elements,
            "baseline": record.card.baseline,
            **({"baselines": record.card.baselines} if record.card.baselines else {}),
            "hyperparameters": record.card.hyperparameters,
            "configuration": record.configuration.model_dump(mode="json"),
            "sha256": sets.sha256,
            "versions": results.versions(),
            **record.card.details.get("data", {}),
            **({"added": terms} if (terms := record.configuration.added) else {}),
            **(more or {}),
        }
        self.columns = results.log_columns(sets.train, with_derivatives(record.configuration.heads))
        self.loggers: list[Any] | None = None
        self.named = getattr(record.configuration.training, "loggers", [])
        self.stages = getattr(record.configuration.training, "names", [])

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

    def rebase(self, baseline: Composition) -> None:
        """Give the checkpoint of a finished run its final baseline; a continued run fits one anew."""
        content = checkpoint.load(self.path)
        final: dict[str, Any] = {"baseline": baseline.energies}
        final |= {"baselines": dict(baseline.others)} if baseline.others else {}
        if content is not None and any(content.get(name) != value for name, value in final.items()):
            checkpoint.save(self.path, {**content, **final})

    def log(self, rows: Sequence[Row], restart: bool) -> None:
        """Write `log.csv`."""
        results.write_log(self.path.with_name("log.csv"), rows, restart, self.columns, self.stages)
        if self.loggers is None:
            self.loggers = loggers.make(self.named, self.path.parent)
        if not restart:  # else they have these rows already
            loggers.log(self.loggers, rows)


def _card(record: Record, potential: Potential, outcome: Outcome) -> ModelCard:
    sets, details = record.sets, record.card.details
    details = {
        "n_parameters": results.n_parameters(potential),
        "best_epoch": outcome.counters.best_epoch,
        "versions": results.versions(),
        **details,
        "data": {
            "sha256": sets.sha256,
            **{f"n_{name}": len(s) for name, s in named_sets(sets).items()},
            "train_frames": validation.frame_marks(sets.train),
            **details.get("data", {}),
        },
    }
    return replace(record.card, details=details)


def _report(record: Record, potential: Potential, outcome: Outcome) -> dict[str, Any]:
    counters, sets = outcome.counters, record.sets
    return {
        "family": record.card.family,
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
        "configuration": record.configuration.model_dump(mode="json"),
    }


def _written(directory: Path, trained: Trained, record: Record, history: Sequence[Row]) -> Trained:
    """Write model.pt and the plots; the errors of every set are filled in, here and in the model's card."""
    sets, report, settings = trained.sets, trained.metrics, record.configuration.export
    for name, structures in named_sets(sets).items():
        report[name] = None
        if structures:
            graphs = record.graphs[name]
            predicted = results.predict(trained.potential, structures, graphs, sets.baseline)
            report[name] = metrics(structures, predicted)
            report[name] |= of_energies(structures, predicted, trained.potential.energy_name)
            shown = (structures, predicted, name)
    if history:
        plots.learning_curves(history, report["best_epoch"], directory / "learning")
    structures, predicted, name = shown
    found = pairs_of_energies(structures, predicted, trained.potential.energy_name)
    plots.parity(found, directory / "parity", f"{name} set, {len(structures)} structures")
    errors = {name: report[name] for name in named_sets(sets) if report[name]}
    trained = replace(trained, card=replace(trained.card, details={"errors": errors, **trained.card.details}))
    trained = _with_terms(trained, record.configuration.added)
    dtype = settings.dtype or record.configuration.training.dtype
    tables = RadialTables(settings.radial_tables)
    path = directory / "model.pt"
    radial = export(trained.potential, path, trained.card, dtype, settings.portable, tables)
    report[RADIAL] = radial and asdict(radial)
    return trained


def _with_terms(trained: Trained, terms: Sequence[Term]) -> Trained:
    """The run with the terms of `add` beside what it learned: what is written, and returned."""
    potential, card = added.add(trained.potential, trained.card, terms)
    return replace(trained, potential=potential, card=card)


def named_sets(sets: DataSets) -> dict[str, list[Structure]]:
    """The structures of every set by its name."""
    return {"train": sets.train, "validation": sets.validation, "test": sets.test}
