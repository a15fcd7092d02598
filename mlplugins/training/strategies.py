"""Strategies of fine-tuning, one function each: which parameters train, what is added, what is exported."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mlplugins import models
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.errors import BadInput
from mlplugins.model_file.precision import DTYPES
from mlplugins.models import sum as sums
from mlplugins.models.base import Potential
from mlplugins.models.capabilities import heads as heads_of
from mlplugins.models.composition import Composition
from mlplugins.nn import lora as low_rank
from mlplugins.quantities import QUANTITIES
from mlplugins.structures.batch import Batch
from mlplugins.structures.dataset import Structure
from mlplugins.training import data
from mlplugins.training.config import hyperparameters
from mlplugins.training.data import DataSets
from mlplugins.training.finetune_config import OPTIONS, FinetuneConfiguration
from mlplugins.training.forgetting import double, evaluate, labelled

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class FinetuneTask:
    """Inputs of a strategy.

    Attributes:
        configuration: all of it.
        base: the base model.
        sets: the data, with the new references.
        replay: frames of `replay`, labelled or not.
    """

    configuration: FinetuneConfiguration
    base: Checkpoint
    sets: DataSets
    replay: list[Structure]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the training."""
        return DTYPES[self.configuration.training.dtype]

    def copy_of_base(self) -> Potential:
        """A copy of the base in the precision of the training."""
        return copy.deepcopy(self.base.potential).to(self.dtype)

    def graphs(self, structures: Sequence[Structure], cutoff: float) -> list[Batch]:
        """One-structure batches relative to the new references."""
        return data.graphs(structures, self.sets.baseline, cutoff, self.dtype)


@dataclass(frozen=True)
class Plan:
    """What is trained, on which data, and what is exported.

    Attributes:
        potential: the model that `fit` trains; frozen parameters do not require gradients.
        train, validation: its batches.
        family, hyperparameters: of the model that is exported.
        finish: from the trained state to that model.
        adapter: what a reader of the checkpoint needs beyond the trained state; None if that is the model.
    """

    potential: Potential
    train: list[Batch]
    validation: list[Batch]
    family: str
    hyperparameters: dict[str, Any]
    finish: Callable[[StateDict], Potential]
    adapter: dict[str, Any] | None = None


def plan(task: FinetuneTask) -> Plan:
    """The plan of the configured strategy.

    Raises:
        BadInput: what the strategy refuses, or nothing to train.
    """
    made = STRATEGIES[task.configuration.strategy](task)
    if not any(p.requires_grad for p in made.potential.parameters()):
        raise BadInput(f"strategy '{task.configuration.strategy}': nothing is left to train in this base")
    return made


def full(task: FinetuneTask) -> Plan:
    """All parameters."""
    return _stages_from(task, 0)


def heads(task: FinetuneTask) -> Plan:
    """Readouts, shifts and scales of the energy; the backbone stays bit-identical."""
    return _stages_from(task, task.base.potential.n_layers + 1)


def freeze(task: FinetuneTask) -> Plan:
    """All but the embedding, the radial basis and the first N layers."""
    layers, n = task.configuration.options.layers, task.base.potential.n_layers
    if layers > n:
        raise BadInput(f"finetune: strategy 'freeze:{layers}': the base has {n} layers; 'heads' freezes all")
    return _stages_from(task, layers + 1)


def lora(task: FinetuneTask) -> Plan:
    """Low-rank updates of all linear maps and networks, merged into the weights at export.

    The shifts of the energy train along: updates of the maps move the mean energy, and hardly move it back.
    """
    options = task.configuration.options
    rank, alpha = options.rank, options.alpha or float(options.rank)
    potential = task.copy_of_base()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.configuration.seed)
        low_rank.attach(potential, rank, alpha)
    for head in heads_of(potential):
        head.shift.requires_grad_()

    def finish(state: StateDict) -> Potential:
        merged = task.copy_of_base()
        low_rank.attach(merged, rank, alpha)
        merged.load_state_dict(state)
        low_rank.merge(merged)
        return merged.requires_grad_(True).eval()

    adapter = {"kind": "lora", "rank": rank, "alpha": alpha}
    return replace(_of_base(task, potential), finish=finish, adapter=adapter)


def replay(task: FinetuneTask) -> Plan:
    """All parameters, on the new frames and, with a weight, on frames of the base.

    Energies of the latter are relative to the references of the base, so both sets ask the same of the model.
    """
    options = task.configuration.options
    frames = task.replay
    if options.structures is not None:
        frames = labelled(double(task.base.potential), frames, task.base.composition)
    graphs = data.graphs(frames, task.base.composition, task.base.potential.cutoff, task.dtype)
    graphs = [replace(graph, weight=options.weight * graph.weight) for graph in graphs]
    made = full(task)
    return replace(made, train=[*made.train, *graphs])


def delta(task: FinetuneTask) -> Plan:
    """A new model that starts at zero, trained on label − base; exported is the sum.

    The base is evaluated once: forces of the sum are sums of forces.
    """
    potential, new = _new_model(task)
    teacher = double(task.base.potential)
    train, validation = (
        task.graphs(_residuals(teacher, structures, task.sets.baseline), potential.cutoff)
        for structures in (task.sets.train, task.sets.validation)
    )
    potential.initialise(data.statistics(train, len(task.sets.elements)))
    with torch.no_grad():
        for readout in (readout for head in heads_of(potential) for readout in head.readouts()):
            readout.weights[-1].zero_()
    terms = [{"family": task.base.family, **task.base.hyperparameters}, new]

    def finish(state: StateDict) -> Potential:
        total = sums.Model(task.sets.elements, sums.Hyperparameters(terms)).to(task.dtype)
        first, second = total.potentials()
        first.load_state_dict(task.copy_of_base().state_dict())
        second.load_state_dict(state)
        return total.eval()

    adapter = {"kind": "delta", "base": task.copy_of_base().state_dict()}
    return Plan(potential, train, validation, "sum", {"terms": terms}, finish, adapter)


def distill(task: FinetuneTask) -> Plan:
    """A new, smaller model trained on the labels of the base, which the structures already carry here."""
    potential, new = _new_model(task)
    train = task.graphs(task.sets.train, potential.cutoff)
    validation = task.graphs(task.sets.validation, potential.cutoff)
    potential.initialise(data.statistics(train, len(task.sets.elements)))
    fresh = copy.deepcopy(potential)

    def finish(state: StateDict) -> Potential:
        fresh.load_state_dict(state)
        return fresh.eval()

    family = new.pop("family")
    return Plan(potential, train, validation, family, new, finish)


STRATEGIES: dict[str, Callable[[FinetuneTask], Plan]] = {
    "full": full,
    "heads": heads,
    "freeze": freeze,
    "lora": lora,
    "replay": replay,
    "delta": delta,
    "distill": distill,
}
if STRATEGIES.keys() != OPTIONS.keys():  # a strategy is a function here and its options there
    raise RuntimeError("strategies without options, or options without strategy")


def _stages_from(task: FinetuneTask, first: int) -> Plan:
    """Train what belongs to the stage `first` or a later one (see `Potential.stage`)."""
    potential = task.copy_of_base()
    for head in heads_of(potential):  # the scale: a constant in training, here like any other
        scale = head.energy_scale
        del head.energy_scale
        head.energy_scale = nn.Parameter(scale)
    for name, parameter in potential.named_parameters():
        parameter.requires_grad_(potential.stage(name) >= first)
    return _of_base(task, potential)


def _of_base(task: FinetuneTask, potential: Potential) -> Plan:
    """Train `potential`, whose state is that of the base's architecture."""

    def finish(state: StateDict) -> Potential:
        tuned = task.copy_of_base()
        tuned.load_state_dict(state)
        return tuned.eval()

    cutoff = potential.cutoff
    train, validation = task.graphs(task.sets.train, cutoff), task.graphs(task.sets.validation, cutoff)
    return Plan(potential, train, validation, task.base.family, task.base.hyperparameters, finish)


def _new_model(task: FinetuneTask) -> tuple[Potential, dict[str, Any]]:
    """A fresh model of the section `model`, and its family and hyper-parameters."""
    section = task.configuration.model
    if section is None:
        raise BadInput("model: this strategy trains a new model: give its family")
    parameters = hyperparameters(section.family, section.model_extra or {}, "model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.configuration.seed)
        potential: Potential = models.family(section.family).Model(task.sets.elements, parameters)
    return potential.to(task.dtype), {"family": section.family, **asdict(parameters)}


def _residuals(base: Potential, structures: Sequence[Structure], references: Composition) -> list[Structure]:
    """The structures with label − base as labels; energies keep the references."""
    found = []
    for s, p in zip(structures, evaluate(base, structures, references), strict=True):
        left: dict[str, Any] = {}
        for name, quantity in QUANTITIES.items():
            label, predicted = s.get(name), p.get(name)
            if label is not None and predicted is not None:
                left[name] = label - predicted
            elif quantity.derivative is None:
                left[name] = label  # the base leaves it to the new term
        left["energy"] = (s.energy or 0.0) - p.energy + references.predict(data.symbols(s))
        found.append(s.labelled(left))
    return found
