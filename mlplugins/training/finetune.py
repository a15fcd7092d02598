"""A whole fine-tuning run: base, data, references, strategy, fit, forgetting, files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from mlplugins import checkpoints, files
from mlplugins.checkpoints import added, native
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.elements import require_known
from mlplugins.errors import BadInput
from mlplugins.model_file.card import NO_ENERGIES, has_no_energy
from mlplugins.model_file.doubts import closest
from mlplugins.model_file.made_for import conditions, contradiction
from mlplugins.model_file.precision import DTYPES
from mlplugins.models.base import Potential
from mlplugins.models.capabilities import forget_uncertainty, is_trainable, of_whole_molecule
from mlplugins.models.composition import Composition
from mlplugins.structures import dataset, labels, validation
from mlplugins.structures.dataset import Structure
from mlplugins.structures.metrics import metrics
from mlplugins.training import data, energies, forgetting, new_heads, references, results
from mlplugins.training.asked import require_learnable, require_states
from mlplugins.training.data import DataSets, Split
from mlplugins.training.finetune_config import OWN_MODEL, FinetuneConfiguration, Replay
from mlplugins.training.fit import Parts, TrainingObserver, fit
from mlplugins.training.references import References
from mlplugins.training.run import (
    CHECKPOINT,
    Files,
    Record,
    Trained,
    finished,
    first_card,
    named_sets,
    settled,
)
from mlplugins.training.sections import KeySection
from mlplugins.training.strategies import FinetuneTask, Plan, plan

Reader = Callable[[list[str] | None], Checkpoint]
"""Reads the base with these elements only, or with all."""


@dataclass(frozen=True)
class Inputs:
    """Inputs of a run: the base, the data, the base set (empty: none given) and the frames of `replay`."""

    base: Checkpoint
    parts: Split
    base_set: list[Structure]
    replay: list[Structure]


def finetune(
    configuration: FinetuneConfiguration,
    read: Reader,
    directory: Path,
    observer: TrainingObserver,
    restart: bool = False,
) -> Trained:
    """Fine-tune as configured, or continue the run in `directory`, and write the files of `train`.

    Args:
        configuration: base, strategy, data.
        read: reads the base.
        directory: where results go.
        observer: told of the progress.
        restart: begin anew although `directory` holds a run.

    Raises:
        BadInput: wrong data, an element that the base lacks, or a directory that holds another run.
        RunFailed: training diverged, or a file could not be written.
    """
    inputs = _inputs(configuration, read)
    new_heads.require_possible(inputs.base, configuration, inputs.parts.train)
    inputs = replace(inputs, base=new_heads.added(inputs.base, configuration, inputs.parts.train))
    fitted = _references(configuration, inputs)
    sets = _sets(configuration, inputs, fitted)
    task = FinetuneTask(configuration, inputs.base, sets, inputs.replay)
    base_set = inputs.base_set or _probes(inputs)
    made = plan(task)
    model = made.potential
    task = replace(task, sets=require_learnable(configuration, sets, model.predicts, model.inputs))
    record = _record(task, made)
    added.require_possible(made.potential, record.card, configuration.added)
    store = Files(
        directory, record, restart, {"adapter": made.adapter, "finetune": record.card.details["finetune"]}
    )
    store.prepare()
    behind = new_heads.left_behind(inputs.base, configuration, [*inputs.parts.train, *inputs.replay])
    for warning in [*task.sets.warnings, *behind]:
        observer.note(warning)
    trainable, total = _counts(made)
    if state := conditions(inputs.base.details):
        said = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in state.items())
        observer.note(f"the base is converted for {said}: frames that say nothing of it are taken as such")
    observer.note(
        f"strategy {configuration.finetune.strategy}: {trainable} of {total} parameters are trained, on "
        f"{len(made.train)} frames"
    )
    given = made.potential, made.train, made.validation, configuration.training, configuration.seed
    sizes = data.statistics(made.train, len(task.sets.elements)).labels
    outcome = fit(Parts(*given, sizes), store, observer)
    potential = made.finish(made.potential.state_dict())
    record = settled(record, potential, store, observer)
    trained = finished(record, directory, potential, outcome)
    if trained.is_main:
        trained.metrics["finetune"] = _report(task, made, fitted)
        trained.metrics["forgetting"] = _forgetting(task, potential, base_set, bool(inputs.base_set))
    return trained


def base_reader(path: Path, head: str | None = None) -> Reader:
    """Reads the base model from a native or a foreign checkpoint, with some of its elements or all.

    Raises:
        BadInput: no such file, not a checkpoint, or a head of a format without heads.
    """
    path = files.in_folder(path, CHECKPOINT, "model.pt")
    own = checkpoints.is_native(path)
    if own and head is not None:
        raise BadInput(f"base.head: {path} is of a format without heads; leave this key out")

    def read(elements: list[str] | None) -> Checkpoint:
        checkpoint = native.read(path) if own else checkpoints.read(path, elements, head)
        if of_whole_molecule(checkpoint.potential):
            raise BadInput(
                f"{path}: '{checkpoint.family}' is solved in closed form, there is nothing to fine-tune: "
                "train it anew, or learn a difference with data.prior"
            )
        if checkpoint.family == "committee":
            raise BadInput(
                f"{path}: a committee: fine-tune each of its members, from different seeds, and make a "
                "committee of the results (`mlplugins committee`)"
            )
        forget_uncertainty(checkpoint.potential)
        origin = checkpoint.details.get("source") or {"format": "mlplugins", "file": path.name}
        source = {**conditions(checkpoint.details), **origin, "sha256": files.sha256(path)}
        return replace(checkpoint, details={**checkpoint.details, "source": source})

    return read


def _inputs(configuration: FinetuneConfiguration, read: Reader) -> Inputs:
    """Read all files; a frame that the base cannot describe is refused by name."""
    whole = read(None)
    trainable = results.n_parameters(whole.potential) > 0 and is_trainable(whole.potential)
    if configuration.strategy not in OWN_MODEL and not trainable:
        raise BadInput(
            f"base.checkpoint: '{whole.family}' has no parameters that gradients train, so strategy "
            f"'{configuration.finetune.strategy}' has nothing to train; strategies with a model of their own "
            f"are {' and '.join(OWN_MODEL)}"
        )
    added.require_possible(whole.potential, whole, configuration.subtracted, configuration.base.checkpoint)
    elements = whole.composition.elements
    options = configuration.options
    replayed: list[Structure] = []
    if isinstance(options, Replay):
        if options.data is not None:
            replayed = _labelled_frames(configuration, options.data, options.keys, "finetune.keys")
        else:
            replayed = dataset.read(options.structures or [])
    base_set: list[Structure] = []
    if configuration.base.data is not None:
        base_set = _labelled_frames(
            configuration, configuration.base.data, configuration.base.keys, "base.keys"
        )
    replayed, base_set = (energies.placed(frames, configuration) for frames in (replayed, base_set))
    parts = data.split(configuration, _labels_of(whole) if configuration.strategy == "distill" else None)
    frames = [*parts.train, *parts.validation, *parts.test, *replayed, *base_set]
    _check_elements(frames, elements)
    _check_states(frames, whole)
    chosen = _chosen(configuration, whole, frames)
    return Inputs(whole if chosen == elements else read(chosen), parts, base_set, replayed)


def _labels_of(base: Checkpoint) -> data.Labeller:
    """Function that gives frames the labels of the base."""
    teacher = forgetting.double(base.potential)

    def label(frames: list[Structure]) -> list[Structure]:
        _check_elements(frames, base.composition.elements)
        return forgetting.labelled(teacher, frames, base.composition)

    return label


def _labelled_frames(
    configuration: FinetuneConfiguration, source: str | list[str], section: KeySection, where: str
) -> list[Structure]:
    frames = dataset.read(source, section.names)
    validation.check(frames, section.names, configuration.needs_forces, where)
    labels.require_named(frames, section.names, where)
    return frames


def _check_elements(frames: Sequence[Structure], elements: Sequence[str]) -> None:
    for frame in frames:
        require_known(
            frame.numbers,
            elements,
            f"{frame.origin}: element(s) ",
            f" that the base does not know; it knows {' '.join(sorted(elements))}: choose another base, or "
            "remove the frame",
        )


def _check_states(frames: Sequence[Structure], base: Checkpoint) -> None:
    """Refuse frames whose charge or spin the base does not know, or is not made for."""
    require_states(frames, base.potential.inputs)
    for frame in frames:
        if said := contradiction({**base.details, "finetune": {}}, frame.states):
            raise BadInput(f"{frame.origin}: {said}, and name that model.pt as the base")


def _chosen(configuration: FinetuneConfiguration, base: Checkpoint, frames: Sequence[Structure]) -> list[str]:
    """Elements that the fine-tuned model keeps."""
    wanted, known = configuration.base.elements, base.composition.elements
    native = base.source["format"] == "mlplugins"
    present = {symbol for frame in frames for symbol in data.symbols(frame)}
    if isinstance(wanted, list):
        if native:
            raise BadInput("base.elements: a checkpoint of mlplugins keeps its elements; leave this key out")
        missing = sorted(present - set(wanted))
        if missing:
            raise BadInput(f"base.elements: the data hold {', '.join(missing)}, which the list leaves out")
        return list(wanted)
    if native or wanted == "all":
        return known
    return sorted(present, key=lambda symbol: int(atomic_numbers[symbol]))


def _references(configuration: FinetuneConfiguration, inputs: Inputs) -> References:
    base, frames = inputs.base, inputs.parts.train
    if base.composition.others:
        return _references_of_energies(configuration, inputs)
    given = data.given_baseline(configuration.data, [*frames, *inputs.parts.validation])
    if configuration.strategy == "distill":  # the student learns total energies: references as in `train`
        predicted = [base.composition.predict(data.symbols(s)) for s in frames]
    else:
        found = forgetting.evaluate(forgetting.double(base.potential), frames, base.composition)
        predicted = [p.energy for p in found]
    return references.refit(frames, predicted, base.composition, given)


def _references_of_energies(configuration: FinetuneConfiguration, inputs: Inputs) -> References:
    """References of each of several energies, by its own frames."""
    base, parts = inputs.base, inputs.parts
    teacher, fitted = forgetting.double(base.potential), {}
    for head in base.composition.heads:
        name = head or base.potential.energy_name
        frames = [s for s in parts.train if s.head == head]
        held_out = [s for s in parts.validation if s.head == head]
        given = data.given_baseline(configuration.data, [*frames, *held_out], name) if frames else None
        predicted = [p.energy for p in forgetting.evaluate(teacher, frames, base.composition)]
        fitted[head] = references.refit(frames, predicted, base.composition.of_head(head), given)
    reports = {head or base.potential.energy_name: found.report for head, found in fitted.items()}
    return References(
        Composition.joined({head: found.composition for head, found in fitted.items()}),
        {**fitted[""].report, "energies": reports},
        [f"{head}: {text}" if head else text for head, found in fitted.items() for text in found.warnings],
    )


def _sets(configuration: FinetuneConfiguration, inputs: Inputs, fitted: References) -> DataSets:
    notes = [] if configuration.strategy == "distill" else fitted.warnings
    sets = data.data_sets(inputs.parts, fitted.composition, [*inputs.parts.warnings, *notes])
    hashes = {**sets.sha256, "base": inputs.base.source["sha256"]}
    if inputs.replay:
        hashes["replay"] = validation.data_hash(inputs.replay)
    return replace(sets, sha256=hashes)


def _probes(inputs: Inputs) -> list[Structure]:
    base = inputs.base
    frames = forgetting.probes(inputs.parts.train)
    return forgetting.labelled(forgetting.double(base.potential), frames, base.composition)


def _record(task: FinetuneTask, made: Plan) -> Record:
    cutoff = made.potential.cutoff
    if task.configuration.strategy == "delta":
        cutoff = max(cutoff, task.base.potential.cutoff)
    dtype = DTYPES[task.configuration.training.dtype]
    graphs = {
        name: data.graphs(structures, task.sets.baseline, cutoff, dtype)
        for name, structures in named_sets(task.sets).items()
    }
    origin: dict[str, Any] = {"strategy": task.configuration.finetune.strategy, "base": task.base.source}
    learned = added.learned_dispersion(task.base.details)
    if "d3" in [part["family"] for part in task.base.parts]:
        origin["dispersion"] = "D3 of the base"  # which a student learns
    elif learned is not None:
        origin["dispersion"] = learned
    if has_no_energy(task.base.details):
        origin |= NO_ENERGIES
    known = {} if task.configuration.strategy == "distill" else closest(task.base.details)
    papers = task.base.references
    card = first_card(
        task.configuration, task.sets, made.family, made.hyperparameters, papers, known, finetune=origin
    )
    return Record(task.configuration, task.sets, graphs, card)


def _counts(made: Plan) -> tuple[int, int]:
    """Trained parameters, and those of the exported model's trained part."""
    return results.n_parameters(made.potential), sum(p.numel() for p in made.potential.parameters())


def _report(task: FinetuneTask, made: Plan, fitted: References) -> dict[str, Any]:
    configuration = task.configuration
    trainable, total = _counts(made)
    before: dict[str, Any] = {}
    base = forgetting.double(task.base.potential)
    for name, frames in named_sets(task.sets).items():
        if frames and configuration.strategy != "distill":
            before[name] = metrics(frames, forgetting.evaluate(base, frames, task.sets.baseline))
    return {
        "strategy": configuration.finetune.strategy,
        "options": configuration.options.model_dump(mode="json"),
        "base": {"family": task.base.family, **task.base.source},
        "n_trained_parameters": trainable,
        "n_parameters_with_frozen": total,
        "n_train_frames": len(made.train),
        "references": fitted.report,
        "base_errors": before,
    }


def _forgetting(
    task: FinetuneTask, potential: Potential, base_set: Sequence[Structure], labelled: bool
) -> dict[str, Any]:
    """Errors on the base set before and after; energies with the references of the base.

    `potential` is without the terms of `add`, as the base and its labels are.
    """
    old = task.base.composition
    return {
        "set": "base.data" if labelled else "rattled copies of training frames, labelled by the base",
        "before": forgetting.errors(forgetting.double(task.base.potential), base_set, old),
        "after": forgetting.errors(forgetting.double(potential), base_set, old),
    }
