"""Training in closed form: data, solver of the family, files; the outputs of gradient training.

A solver is one file of `mlplugins.training.solvers` with `Settings` (a `SolverSection`, the `training`
section of the configuration) and `solve(task, observer) -> Solution`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mlplugins import models
from mlplugins.checkpoints import added
from mlplugins.errors import BadInput
from mlplugins.models.base import Potential
from mlplugins.structures.dataset import Structure
from mlplugins.training import data, plots
from mlplugins.training.asked import require_learnable
from mlplugins.training.config import ClosedFormConfiguration, solver_module
from mlplugins.training.data import DataSets
from mlplugins.training.fit import Counters, Outcome, TrainingObserver
from mlplugins.training.run import (
    Files,
    Record,
    Trained,
    finished,
    finished_before,
    first_card,
    named_sets,
)


@dataclass(frozen=True)
class SolverTask:
    """Inputs of a solver.

    Attributes:
        family: name of the model family.
        hyperparameters: the family's, as configured.
        settings: the `training` section.
        sets: the data.
        targets: labels to learn from: `energies`, `forces`, `energies+forces`.
        seed: of everything random.
    """

    family: str
    hyperparameters: Any
    settings: Any
    sets: DataSets
    targets: str
    seed: int


@dataclass
class Solution:
    """A fitted model.

    Attributes:
        potential: float64, on plain ops.
        hyperparameters: with which its family can load the weights.
        report: JSON-able, `solver` of metrics.json and of the exported file's record.
        fitted: what the final fit used.
        validation: errors on the validation set of the model that was fitted without it, None if the final
            model was.
        n_coefficients: number of unknowns that were solved for.
        learning_curve: rows with `n_train` and errors.
        z_scores: errors over predicted standard deviations, before and after calibration, of frames that the
            fit did not see, by what they are.
    """

    potential: Potential
    hyperparameters: dict[str, Any]
    report: dict[str, Any]
    fitted: list[Structure]
    validation: dict[str, Any] | None = None
    n_coefficients: int = 0
    learning_curve: list[dict[str, float]] = field(default_factory=list)
    z_scores: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def train(
    configuration: ClosedFormConfiguration, directory: Path, observer: TrainingObserver, restart: bool = False
) -> Trained:
    """Fit as configured and write model.pt, checkpoint.ckpt and plots.

    Raises:
        BadInput: wrong data or settings, more memory than there is, a directory that holds another run.
        RunFailed: the kernel matrix is not positive definite.
    """
    _refuse(configuration)
    clock = time.perf_counter(), time.process_time()
    sets = data.load(configuration)
    family = configuration.model.family
    sets = require_learnable(configuration, sets, models.family(family).Model.predicts)
    before = None if restart else finished_before(directory, configuration, sets, observer)
    if before is not None:
        return before
    references = models.family(family).references
    card = first_card(configuration, sets, family, asdict(configuration.hyperparameters), references)
    if configuration.added:
        unsolved = models.family(family).Model(sets.elements, configuration.hyperparameters)
        added.require_possible(unsolved, card, configuration.added)
    task = SolverTask(
        family,
        configuration.hyperparameters,
        configuration.training,
        sets,
        configuration.targets,
        configuration.seed,
    )
    record = Record(configuration, sets, {}, card)
    Files(directory, record, restart).prepare()
    for warning in sets.warnings:
        observer.note(warning)
    solution = solver_module(configuration.solver or "").solve(task, observer)
    counters = Counters(
        wall_s=time.perf_counter() - clock[0],
        cpu_s=time.process_time() - clock[1],
        stopped="solved in closed form",
    )
    record = _fitted(record, solution)
    Files(directory, record).save(
        {"best": solution.potential.state_dict(), "average": None, "counters": vars(counters).copy()}
    )
    trained = finished(record, directory, solution.potential, Outcome(counters, [], True))
    if solution.validation is not None:
        trained.metrics["validation"] = solution.validation
    if solution.learning_curve:
        trained.metrics["learning_curve"] = solution.learning_curve
        plots.data_curve(
            solution.learning_curve, solution.report.get("learning_curve", {}), directory / "learning"
        )
    if solution.z_scores:
        plots.z_scores(solution.z_scores, directory / "uncertainty")
    trained.metrics["n_parameters"] = solution.n_coefficients
    trained.metrics["solver"] = solution.report
    return trained


def _refuse(configuration: ClosedFormConfiguration) -> None:
    """Refuse what gradient training only can do."""
    if configuration.export.dtype == "float32":
        raise BadInput("export.dtype: kernel weights cancel over many digits, expected float64, got float32")
    if configuration.data.weights:
        raise BadInput(
            f"data.weights: '{configuration.model.family}' is solved in closed form, where all frames count "
            "alike: leave it out, or choose the frames (`mlplugins select`)"
        )


def _fitted(record: Record, solution: Solution) -> Record:
    """The run after its fit: sets as they were used, and their neighbour lists."""
    sets = record.sets
    joined = len(solution.fitted) > len(sets.train)
    sets = replace(sets, train=solution.fitted, validation=[] if joined else sets.validation)
    graphs = {
        name: data.graphs(structures, sets.baseline, solution.potential.cutoff, torch.float64)
        for name, structures in named_sets(sets).items()
    }
    details = {
        **record.card.details,
        "hyperparameters": solution.hyperparameters,
        "solver": solution.report,
        "n_parameters": solution.n_coefficients,
    }
    return replace(record, sets=sets, graphs=graphs, card=replace(record.card, details=details))
