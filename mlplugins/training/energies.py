"""Which of several energies the labels of a frame are of, and the baselines of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mlplugins import elements
from mlplugins.errors import BadInput
from mlplugins.structures import dataset, labels
from mlplugins.structures.dataset import Keys, Structure
from mlplugins.training.config import RunConfiguration
from mlplugins.training.sections import ByHead, Sources

HEAD = "head"
"""Entry of `atoms.info` that names the energy, as in MACE."""


def read(source: Sources | ByHead, configuration: RunConfiguration) -> list[Structure]:
    """The frames of all sources. With several energies those that hold labels of more than one of them come
    once for each, and `head` says of which.

    Raises:
        BadInput: as `dataset.read`; a frame or a file of an energy that is not named, or that contradict each
            other.
    """
    if not configuration.energies:
        if isinstance(source, dict):
            raise BadInput(f"data: {', '.join(source)}: files by the names of energies need `energies`")
        return dataset.read(source, configuration.keys)
    parts: Mapping[str, Sources] = source if isinstance(source, dict) else {"": source}
    for name in parts:
        _place(name or None, configuration, "data")
    return [s for name, files in parts.items() for s in _of_files(files, name, configuration)]


def _of_files(files: Sources, name: str, configuration: RunConfiguration) -> list[Structure]:
    """Frames of files that hold labels of one energy (`name`), or of any."""
    sections = configuration.energies
    keyed = [each for each, section in sections.items() if section.keys is not None]
    if name or not keyed:
        keys = _keys(configuration, name) if name in keyed else configuration.keys
        return [_placed(s, name, configuration) for s in dataset.read(files, keys)]
    found = []
    before: dict[str, float] = {}
    for each in sections:
        keys = _keys(configuration, each)
        frames = dataset.read(files, keys)
        own = [s for s in frames if str(s.states.get(HEAD, each)) == each and s.energy is not None]
        if each in keyed and not own:
            labels.require_named(frames, keys, f"energies: {each}: keys")
        own = [_with_gap(s, before) for s in own]
        before = {s.origin: s.energy for s in own if s.energy is not None}
        found += [_placed(s, each, configuration) for s in own]
    if not found:
        raise BadInput(f"{files}: no frame has an energy of {', '.join(sections)}")
    return found


def _with_gap(s: Structure, before: Mapping[str, float]) -> Structure:
    """The frame with the label of its gap to the energy `before` this one, by origin, if it has that too."""
    if s.origin not in before or s.energy is None:
        return s
    return replace(s, more={**s.more, "gap": np.float64(s.energy - before[s.origin])})


def _keys(configuration: RunConfiguration, name: str) -> Keys:
    """Names of the labels of one energy: its own, else those of `data.keys`."""
    section, common = configuration.energies[name].keys, configuration.keys
    if section is None:
        return common
    own = {option: getattr(section, option) for option in section.model_fields_set}
    return replace(common, named=common.named | {*own}, **own)


def _placed(s: Structure, name: str, configuration: RunConfiguration) -> Structure:
    """The frame with the energy that its file (`name`), else itself, says."""
    said = s.states.get(HEAD)
    if name and said is not None and str(said) != name:
        raise BadInput(
            f"{s.origin}: it says {HEAD}={said}, but its file is given for '{name}': correct one of them"
        )
    return replace(s, head=_place(name or said, configuration, s.origin))


def _place(said: object, configuration: RunConfiguration, where: str) -> str:
    """Name of an energy as `Structure.head` has it: "" of the first."""
    names = list(configuration.energies)
    if said is None or str(said) == names[0]:
        return ""
    if str(said) not in names:
        raise BadInput(
            f"{where}: {HEAD} '{said}': expected one of {', '.join(names)} (the section `energies`); name it "
            "there, or leave the frame out"
        )
    return str(said)


def placed(frames: Sequence[Structure], configuration: RunConfiguration) -> list[Structure]:
    """The frames with the energies that they themselves say."""
    if not configuration.energies:
        return list(frames)
    return [_placed(s, "", configuration) for s in frames]


def notes(
    train: Sequence[Structure], frames: Sequence[Structure], configuration: RunConfiguration
) -> list[str]:
    """How many frames there are of each energy to train and validate on, and how many of all do not say of
    which they are."""
    names = list(configuration.energies)
    if not names:
        return []
    counts = Counter(s.head or names[0] for s in train)
    said = f"energies: {', '.join(f'{counts[n]} frames of {n}' for n in names)}; `energy` is '{names[0]}'"
    files = [configuration.data.train, configuration.data.validation, configuration.data.test]
    keyed = any(section.keys is not None for section in configuration.energies.values())
    silent = 0 if keyed else sum(HEAD not in s.states for s in frames)
    if silent and not all(isinstance(source, dict | float | None) for source in files):
        said += f". {silent} frame(s) whose `info` names no {HEAD} are taken as of '{names[0]}' where their "
        said += "file is not given for another"
    return [said, *_unseen_elements(train, names)]


def _unseen_elements(train: Sequence[Structure], names: Sequence[str]) -> list[str]:
    """Energies of which no frame holds an element that those of others hold."""
    seen: dict[str, set[int]] = {name: set() for name in names}
    for s in train:
        if s.energy is not None:
            seen[s.head or names[0]].update(s.numbers.tolist())
    every = set().union(*seen.values())
    lacking = {name: sorted(every - own) for name, own in seen.items() if own and every - own}
    return [
        f"energies: no frame of '{name}' holds {', '.join(map(elements.symbol, missing))}: nothing says "
        f"its energy of such atoms, so that '{name}' of structures with them means nothing; add frames"
        for name, missing in lacking.items()
    ]


def names_of_labels(configuration: RunConfiguration) -> list[str]:
    """Labels that the energies have by names of their own."""
    sections = [section.keys for section in configuration.energies.values() if section.keys is not None]
    found = [getattr(keys, option) for keys in sections for option in keys.model_fields_set]
    return [name for name in found if name is not None]


def require_trained(
    configuration: RunConfiguration, train: Sequence[Structure], names: Collection[str] | None = None
) -> None:
    """Refuse energies, or those of `names`, of which no training frame has one.

    Raises:
        BadInput: naming them.
    """
    known = {s.head for s in train if s.energy is not None}
    for name in configuration.energies if names is None else names:
        if _place(name, configuration, "energies") not in known:
            raise BadInput(
                f"energies: no training frame has an energy of '{name}': add some (info['{HEAD}'], or "
                f"data.train: {{{name}: FILE}}), or leave the name out"
            )


def by_head(frames: Sequence[Structure]) -> dict[str, list[Structure]]:
    """The frames of every energy, in the order in which these come first."""
    found: dict[str, list[Structure]] = {}
    for s in frames:
        found.setdefault(s.head, []).append(s)
    return found
