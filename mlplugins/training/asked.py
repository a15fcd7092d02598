"""What a configuration asks to learn, against what the model predicts and the labels of the frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mlplugins.errors import BadInput, nearest
from mlplugins.quantities import QUANTITIES, with_derivatives, with_labels
from mlplugins.structures import labels
from mlplugins.structures import state as states
from mlplugins.structures.dataset import Structure
from mlplugins.training.config import RunConfiguration
from mlplugins.training.data import DataSets
from mlplugins.training.energies import HEAD
from mlplugins.training.gradient_config import LossSection

CHARGE_OFF = 0.02
"""Rounding of the sum of charges in files, e."""

STATES_OFF = 1e-4
"""Rounding of energies of equal states in files, eV."""


def require_learnable(
    configuration: RunConfiguration,
    sets: DataSets,
    predicts: Iterable[str],
    inputs: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> DataSets:
    """Refuse quantities that are asked for in vain, before anything is computed.

    Asked for are those with a weight in `training.loss` or a label in `data.keys` of the user's own.

    Args:
        configuration: of the run.
        sets: its data.
        predicts: what the model returns; it also has the derivatives of these.
        inputs: what it takes of a structure as a whole, with the lowest and the highest value.

    Returns:
        The data, with warnings about labels that are not learned.

    Raises:
        BadInput: a quantity that the model does not predict, or that no frame of a set is labelled with; a
            charge or spin that the model does not know; a stage that learns nothing.
    """
    everything = [*sets.train, *sets.validation, *sets.test]
    if inputs:
        require_states(everything, inputs)
    _require_sums(everything, inputs)
    _require_origin(configuration, everything)
    _require_taught(configuration, sets.train)
    if configuration.coupled:
        _require_order(everything)
    learned = with_derivatives(predicts)
    notes = _stages(configuration, sets, learned)
    asked = _asked(configuration)
    for name, where in asked.items():
        if QUANTITIES[name].made:
            _require_gaps(where, sets.train)
        elif name not in learned:
            raise BadInput(
                f"{where}: the model does not predict '{name}', it predicts {', '.join(learned)}: leave this "
                f"key out, or choose a model.family that predicts '{name}'"
            )
        for each, frames in _sets(configuration, sets).items():
            if frames and all(s.get(name) is None for s in frames):
                raise BadInput(
                    f"{where}: '{name}' is to be learned, but none of the {len(frames)} {each} frames that "
                    f"are used has it (first {frames[0].origin}): leave this key out, or label the frames"
                )
    seen = [*inputs, *([HEAD] if configuration.energies else [])]
    notes += _not_learned(sets, learned) + _not_measured(sets, asked)
    notes += labels.unseen_states(everything, seen)
    return replace(sets, warnings=[*sets.warnings, *notes])


def require_states(frames: Iterable[Structure], inputs: Mapping[str, tuple[float, float]]) -> None:
    """Refuse frames whose charge or spin the model does not know."""
    for frame in frames:
        if said := states.outside(states.of(frame.states, frame.origin), inputs):
            raise BadInput(f"{frame.origin}: {said}")


def _require_sums(frames: Iterable[Structure], inputs: Iterable[str]) -> None:
    """Refuse charges that do not add up to what the model makes them add up to."""
    for frame in frames:
        charges = frame.get("charges")
        if charges is None:
            continue
        total = states.of(frame.states, frame.origin).charge if "charge" in inputs else 0.0
        if abs(float(charges.sum()) - total) > CHARGE_OFF:
            raise BadInput(
                f"{frame.origin}: the charges add up to {charges.sum():.3f} e, those of the model to "
                f"{total:g} e: remove the frame, choose a base that takes a charge, or correct the labels"
            )


def _require_origin(configuration: RunConfiguration, frames: Iterable[Structure]) -> None:
    """Refuse dipoles of charged frames, which depend on the origin, unless the user says where that is."""
    section = configuration.heads.get("dipole")
    if section is None or (section.model_extra or {}).get("origin"):
        return
    for frame in frames:
        charge = states.of(frame.states, frame.origin).charge
        if frame.get("dipole") is not None and charge != 0.0:
            raise BadInput(
                f"{frame.origin}: the dipole of a structure of charge {charge:g} e depends on the origin, "
                "but the model's does not: take charge × reference point off the labels, and say heads: "
                "{dipole: {origin: centre of mass}} (in words, for those who use the model)"
            )


def _require_gaps(where: str, frames: Iterable[Structure]) -> None:
    """Refuse the loss of gaps where no frame has labels of two energies."""
    if all(s.get("gap") is None for s in frames):
        raise BadInput(
            f"{where}: gaps are learned of frames with the labels of two adjacent energies, and no training "
            "frame has these: give each energy its `keys` (energies: {s0: {keys: {energy: E0}}, s1: …}), or "
            "leave this weight out"
        )


def _require_order(frames: Iterable[Structure]) -> None:
    """Refuse states that are not in the order of their energies, as eigenvalues are."""
    for frame in frames:
        gap = frame.get("gap")
        if gap is not None and gap < -STATES_OFF:
            raise BadInput(
                f"{frame.origin}: the energy of '{frame.head}' is {-gap:.4g} eV below that of the state "
                "before, but coupled energies are eigenvalues, lowest first: sort the labels of every frame, "
                "with their forces, or leave `coupled` out"
            )


def _require_taught(configuration: RunConfiguration, frames: Sequence[Structure]) -> None:
    """Refuse heads without labels of their own where those that they learn from are not read."""
    for name in configuration.heads:
        teacher = QUANTITIES[name].learns
        if teacher is not None and all(s.get(teacher) is None for s in frames):
            raise BadInput(
                f"heads: {name} learns from {teacher}, of which no training frame has any: name them in "
                f"data.keys: {{{teacher}: NAME}} (energy: null leaves them out, too), or leave {name} out"
            )


def _asked(configuration: RunConfiguration) -> dict[str, str]:
    """Quantities that the user asks for → where."""
    keys = configuration.keys
    weights: Any = getattr(configuration.training, "loss", LossSection())  # solvers have none
    stages = getattr(configuration.training, "stages", None) or ()
    found = {}
    for name, quantity in QUANTITIES.items():
        for label in quantity.labels:
            key = getattr(keys, label.option)
            if label.option in keys.named and key not in (None, label.key):
                where = "heads" if quantity.file_units else "data.keys"
                found[name] = f"{where}: {{{label.option}: {key}}}"
        if name in weights.model_fields_set and weights.weight(name) > 0:
            found[name] = f"training.loss: {{{name}: {weights.weight(name):g}}}"
        for stage in stages:
            if getattr(stage.loss, name):
                found[name] = (
                    f"training.stages: {stage.name}: loss: {{{name}: {getattr(stage.loss, name):g}}}"
                )
    return found


def _stages(configuration: RunConfiguration, sets: DataSets, predicts: Sequence[str]) -> list[str]:
    """Warnings about heads that the features leave behind in the last stage.

    Raises:
        BadInput: a stage that names a head that the model lacks, or that has nothing to learn from.
    """
    stages = getattr(configuration.training, "stages", None)
    if not stages:
        return []
    labelled = [name for name in predicts if any(s.get(name) is not None for s in sets.train)]
    heads = [name for name in labelled if QUANTITIES[name].head is not None]
    learned: list[str] = []
    for stage, section in zip(stages, configuration.training.each()):
        where = f"training.stages: {stage.name}"
        for name in stage.heads or ():
            if name not in heads:
                choice = nearest(name, heads) if heads else "there is none"
                raise BadInput(f"{where}: no head '{name}' whose labels the frames hold: {choice}")
        learned = [name for name in labelled if name in section.loss.learned]
        if not learned:
            raise BadInput(
                f"{where}: nothing is learned, the weights of {', '.join(labelled)} are zero: give one in "
                "its loss, or leave the stage out"
            )
    idle = ", ".join(name for name in heads if name not in learned)
    if not idle:
        return []
    return [
        f"the last stage changes the features below {idle}, which it does not learn: what they predict gets "
        "worse; a small weight in its loss keeps them"
    ]


def _sets(configuration: RunConfiguration, sets: DataSets) -> dict[str, Sequence[Structure]]:
    """The sets whose frames the user chose; of those drawn at random only the whole says something."""
    if isinstance(configuration.data.validation, float):
        return {"training": [*sets.train, *sets.validation], "test": sets.test}
    return {"training": sets.train, "validation": sets.validation, "test": sets.test}


def _not_learned(sets: DataSets, learned: Sequence[str]) -> list[str]:
    names = [quantity.name for quantity in with_labels()]
    spare = [n for n in names if n not in learned and any(s.get(n) is not None for s in sets.train)]
    return [f"the frames hold labels that the model does not predict: {', '.join(spare)}"] if spare else []


def _not_measured(sets: DataSets, asked: Iterable[str]) -> list[str]:
    """Quantities of which a random split left all labels in one of the two parts."""
    return [
        f"no {each} frame of the random split has the label '{name}': give data.validation a larger fraction "
        "or a file, or choose another seed"
        for name in asked
        for each, frames in (("training", sets.train), ("validation", sets.validation))
        if frames and all(s.get(name) is None for s in frames)
    ]
