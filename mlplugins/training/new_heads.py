"""Heads on a model that exists: its trunk as it is, heads fresh or continued."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from mlplugins import models
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.errors import BadInput
from mlplugins.model_file.card import has_no_energy
from mlplugins.models import capabilities
from mlplugins.models.base import Potential, TrainingStatistics
from mlplugins.nn.radial import BiasedMLP
from mlplugins.quantities import ENERGY, QUANTITIES
from mlplugins.structures.dataset import Structure
from mlplugins.training import data, energies
from mlplugins.training.config import hyperparameters
from mlplugins.training.finetune_config import OWN_MODEL, FinetuneConfiguration

Settings = dict[str, Any]


def require_possible(
    base: Checkpoint, configuration: FinetuneConfiguration, train: Sequence[Structure]
) -> None:
    """Refuse strategies that do not train heads, or that would spoil energies that no frame has.

    Raises:
        BadInput: naming the strategy.
    """
    strategy = configuration.strategy
    if configuration.heads and strategy in (*OWN_MODEL, "lora"):
        raise BadInput(
            f"finetune: strategy '{strategy}' trains no heads: choose 'heads' (the trunk stays), 'freeze:N', "
            "'full' or 'replay'"
        )
    kept = strategy == "heads" or has_no_energy(base.details)
    if not kept and all(s.energy is None for s in train):
        raise BadInput(
            f"finetune: strategy '{strategy}' changes the trunk, and with it the energies of the base, of "
            "which no training frame has one: choose 'heads'"
        )


def left_behind(
    base: Checkpoint, configuration: FinetuneConfiguration, train: Sequence[Structure]
) -> list[str]:
    """Warning about heads that are not trained while the features below them change."""
    if configuration.strategy in (*OWN_MODEL, "heads"):
        return []
    names = [
        name
        for name in dict.fromkeys(name for part in base.potential.parts() for name in part.heads)
        if all(_label(s, name) is None for s in train)
    ]
    if not names:
        return []
    return [
        f"strategy {configuration.finetune.strategy} changes the features below the heads of the base, and "
        f"no training frame has a label of {', '.join(names)}: what they predict gets worse; strategy "
        "'heads' leaves them as they are"
    ]


def added(base: Checkpoint, configuration: FinetuneConfiguration, train: Sequence[Structure]) -> Checkpoint:
    """The base with the heads of the configuration, those that it has continued; fresh ones have the size of
    their labels, and fresh energies begin as that of the base.

    Raises:
        BadInput: a family without features for heads, a head of the base with other hyper-parameters, or
            energies without those of the base.
    """
    _require_energies(base, configuration)
    asked = configuration.settings_of_heads
    if not asked:
        return base
    asked |= _like_base(base, configuration)
    settings, new = _merged(base, asked, configuration.energy_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(configuration.seed)
        elements = base.composition.elements
        parameters = hyperparameters(base.family, settings, "base")
        potential = models.family(base.family).Model(elements, parameters)
    state = base.potential.state_dict()
    missing, unexpected = potential.load_state_dict(state, strict=False)
    foreign = [name for name in missing if ".heads." not in f".{name}"]
    if foreign or unexpected:
        raise BadInput(f"heads: the base has other weights than its family ({[*foreign, *unexpected][0]})")
    of_energies = [name for name in new if name.startswith(ENERGY)]
    energies.require_trained(configuration, train, [name.removeprefix(ENERGY) for name in of_energies])
    _begin_as_first(potential, of_energies)
    baselines = {**base.baselines, **{name.removeprefix(ENERGY): base.baseline for name in of_energies}}
    order = [name.removeprefix(ENERGY) for name in potential.variants]
    base = replace(base, baselines={name: baselines[name] for name in order})
    graphs = data.graphs(train, base.composition, potential.cutoff, torch.float64)
    sizes = {
        name: data.label_sizes(graphs, QUANTITIES[name], len(elements))
        for name in new
        if name not in of_energies
    }
    labels = {name: found for name, found in sizes.items() if found}
    potential.initialise_heads(TrainingStatistics(1.0, 1.0, labels))
    dtype = next(iter(base.potential.parameters())).dtype
    details = {**base.details, "hyperparameters": settings}
    return replace(base, potential=potential.to(dtype).eval(), details=details)


def _label(structure: Structure, name: str) -> Any:
    """The label that a head learns from."""
    if name.startswith(ENERGY):
        return structure.energy if structure.head == name.removeprefix(ENERGY) else None
    return structure.get(QUANTITIES[name].learns or name)


def _require_energies(base: Checkpoint, configuration: FinetuneConfiguration) -> None:
    """Refuse energies that leave out those of the base, or call its first by another name, and coupled ones:
    they have one composition baseline, and the references fitted here are of each energy."""
    own = base.potential
    if configuration.coupled or any(part.coupled for part in own.parts()):
        whose = "those asked for" if configuration.coupled else "those of the base"
        raise BadInput(
            f"energies: coupled: {whose} are eigenvalues of one matrix, which finetune cannot continue: its "
            "energies get a zero each. Train them from the start (`mlplugins train`), or take energies "
            "that are not coupled"
        )
    others = [name.removeprefix(ENERGY) for name in own.variants]
    known = [own.energy_name, *others] if own.energy_name else []
    given = list(configuration.energies)
    if own.variants and configuration.strategy in (*OWN_MODEL, "lora"):
        raise BadInput(
            f"'{configuration.strategy}' trains one energy, and the base has {', '.join(known)}: choose "
            "'heads', 'freeze:N', 'full' or 'replay', or let the base label the frames (`mlplugins label`, "
            "kind model, variant NAME) and train on these"
        )
    if (given and known[:1] not in ([], given[:1])) or (own.variants and not {*known} <= {*given}):
        raise BadInput(
            f"energies: the base has {', '.join(known)}: name them, '{known[0]}' first, and then what is "
            f"new; got {', '.join(given) or 'none'}"
        )


def _like_base(base: Checkpoint, configuration: FinetuneConfiguration) -> dict[str, Settings]:
    """Hyper-parameters of the readouts of energies: those of the base, where the user chose none."""
    parts = [part for part in capabilities.heads(base.potential) if isinstance(part, Potential)]
    if not parts:
        return {}
    found: dict[str, Settings] = {}
    first = parts[0]
    last = capabilities.heads(first)[0].readouts()[-1]
    widths = [weight.shape[1] for weight in last.weights][:-1]
    biased = isinstance(last, BiasedMLP)
    for name, section in list(configuration.energies.items())[1:]:
        if ENERGY + name in first.heads:
            found[ENERGY + name] = _settings_of(base)[ENERGY + name]
        elif not section.model_extra and len(set(widths)) < 2:
            found[ENERGY + name] = {"width": widths[0] if widths else 0, "biased": biased}
    return found


def _settings_of(base: Checkpoint) -> dict[str, Settings]:
    terms = base.hyperparameters.get("terms") or [base.hyperparameters]
    return {name: values for term in terms for name, values in (term.get("heads") or {}).items()}


def _begin_as_first(potential: Potential, names: Sequence[str]) -> None:
    """Give fresh energies the readouts of the first, where they have the same shape."""
    for part in capabilities.heads(potential):
        heads = getattr(part, "heads", {})
        for name in names:
            if name not in heads:
                continue
            own, first = list(heads[name].readouts), part.readouts()
            if [w.shape for w in own[-1].parameters()] != [w.shape for w in first[-1].parameters()]:
                continue
            with torch.no_grad():
                for readout in own[: len(own) - len(first)]:  # of layers that the first does not read
                    readout.weights[-1].zero_()
                for readout, other in zip(own[-len(first) :], first):
                    readout.load_state_dict(other.state_dict())
                heads[name].shift.copy_(part.shift)
                heads[name].energy_scale.copy_(part.energy_scale)


def _merged(
    base: Checkpoint, asked: Mapping[str, Settings], energy_name: str | None = None
) -> tuple[Settings, list[str]]:
    """Hyper-parameters of the base with the heads, and which of these are new."""
    settings: Settings = copy.deepcopy(base.hyperparameters)
    terms = settings.get("terms") or [settings]
    names = [term.get("family", base.family) for term in terms]
    able = [
        k
        for k, name in enumerate(names)
        if "heads" in {field.name for field in fields(models.family(name).Hyperparameters)}
    ]
    if not able:
        raise BadInput(f"heads: '{base.family}' has no features for heads: choose a base of nequip or mace")
    term = terms[able[0]]
    old = dict(term.get("heads") or {})
    for name, values in asked.items():
        if name in old and {**values, **old[name]} != values:
            raise BadInput(
                f"heads: the base has a head '{name}' with {old[name]}, expected the same, got {values}: "
                "give those, or choose another base"
            )
    term["heads"] = {**old, **asked}
    if energy_name is not None:
        term["energy_name"] = energy_name
    flows = _share_charges(old, asked)
    return settings, [name for name in asked if name not in old and not (flows and name == "charges")]


def _share_charges(old: Mapping[str, Settings], asked: Mapping[str, Settings]) -> bool:
    """Whether charges are added that a dipole of the base has already, with their size.

    Raises:
        BadInput: charges and a dipole, which are of the same flow, of which only one would be trained;
            charges of another size than those of the dipole.
    """
    both = {**old, **asked}
    if "charges" not in both or not both.get("dipole", {}).get("channels"):
        return False
    for name, other in (("charges", "dipole"), ("dipole", "charges")):
        if name in asked and other not in asked:
            remedy = ", or give dipole: {channels: 0}, of dipoles of atoms" if name == "dipole" else ""
            raise BadInput(
                f"heads: {name}: the base has the head '{other}', which is of the same charges and would "
                f"change with them: name both, with labels of both{remedy}"
            )
    if "charges" in old or "dipole" not in old:
        return False
    sizes = {name: old["dipole"][name] for name in asked["charges"]}
    if sizes != asked["charges"]:
        said = ", ".join(f"{name}: {value}" for name, value in sizes.items())
        raise BadInput(f"heads: charges: those of the dipole of the base have {{{said}}}: give the same")
    return True
