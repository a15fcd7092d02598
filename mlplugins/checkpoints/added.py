"""Terms without parameters beside a model that exists: core repulsion (ZBL) and dispersion (D3).

The result is a `sum`; a model that has such a term already is refused a second one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from mlplugins import models
from mlplugins.config import hyperparameters
from mlplugins.errors import BadInput
from mlplugins.model_file.card import ModelCard
from mlplugins.models import d3 as dispersion
from mlplugins.models import sum as sums
from mlplugins.models import zbl as repulsion
from mlplugins.models.base import Potential, TrainingStatistics
from mlplugins.models.capabilities import of_whole_molecule
from mlplugins.nn.distance import sum_of_radii

AMBIGUOUS = {"bop", "bp", "hf", "m11", "ms2", "n12", "scan"}
"""Functionals whose names mean other things in names of files."""

SHORT, NON_METALS = 0.77, {"B", "C", "N", "O", "Si", "P", "S", "Se", "As"}
"""Shortest bonds (N₂) in sums of covalent radii, and elements with multiple bonds; of others 1."""

NOBLE = {"He", "Ne", "Ar", "Kr", "Xe"}

SLIGHT = 0.01
"""eV that a core repulsion may add to a bond."""

Card = TypeVar("Card", bound=ModelCard)

Term = dict[str, Any]
"""`family` and its hyper-parameters."""

WITH_DISPERSION = re.compile(
    r"(?<![a-z0-9])d[34](bj)?(?![a-z0-9])|(pbe|scan|lyp|97\w?)-?d[34]|dispersion|vdw|vv10|mbd|wb97[mx]"
    r"|mace.?off|spice|omol",
    re.IGNORECASE,
)
"""Names of levels of theory with dispersion, and of published models and data sets of such a level."""

WITHOUT_DISPERSION = re.compile(
    r"(?:(?<![A-Za-z])no|No|(?<![A-Za-z])(?i:non|without|minus))[-_ ]*(?i:d[34](bj)?|dispersion|vdw|vv10|mbd)"
    r"|(?i:dispersion[-_ ]?less)"
)
"""Parts of names that deny it; `NO` in capitals may be nitric oxide."""


def terms(zbl: bool | Sequence[float] = False, d3: str | Sequence[Any] | None = None) -> list[Term]:
    """What is added, as terms of a `sum`.

    Args:
        zbl: screened nuclear repulsion: True, or where its switching function begins and ends, Å.
        d3: dispersion: functional and damping (`pbe-bj`), or these and the cutoff of the pairs, Å.

    >>> terms(zbl=(1.0, 2.0))
    [{'family': 'zbl', 'inner': 1.0, 'outer': 2.0}]

    Raises:
        BadInput: another number of values, an unknown functional.
        MissingDependency: D3 needs tad-dftd3.
    """
    found: list[Term] = []
    if zbl is True:
        found.append({"family": "zbl", "inner": None, "outer": None})
    elif zbl is not False:
        if len(zbl) != 2:
            raise BadInput(f"zbl: expected two distances, inner and outer (Å), or none, got {list(zbl)}")
        found.append({"family": "zbl", "inner": float(zbl[0]), "outer": float(zbl[1])})
    if d3 is not None:
        found.append({"family": "d3", **_dispersion([d3] if isinstance(d3, str) else list(d3))})
    return found


def _dispersion(words: list[Any]) -> Term:
    name, *cutoff = words or [None]
    try:
        numbers = [float(value) for value in cutoff]
    except (TypeError, ValueError):
        numbers = []
    if not isinstance(name, str) or len(numbers) != len(cutoff) or len(cutoff) > 1:
        raise BadInput(f"d3: expected a functional with its damping and perhaps a cutoff (Å), got {words}")
    return dispersion.parameters(name, *numbers)


def add(potential: Potential, card: Card, new: Sequence[Term], file: str = "") -> tuple[Potential, Card]:
    """A model and its card with `new` beside it, as a `sum`; without terms what came.

    `file` is the name that the file of the model has now; its record holds that of its origin.

    Raises:
        BadInput: the model has such a term already, learned it, is one of a whole molecule, or a term is not
            possible.
    """
    if not new:
        return potential, card
    require_possible(potential, card, new)
    if any(term["family"] == "d3" for term in new) and _says_dispersion(file):
        raise BadInput(_twice(file, file))
    old: list[Term] = [{"family": card.family, **card.hyperparameters}]
    parts = [potential]
    if isinstance(potential, sums.Model):
        old, parts = card.parts, potential.potentials()
    parts += [made(term, card.elements) for term in new]
    references = [paper for term in new for paper in models.family(term["family"]).references]
    changed = replace(
        card,
        family="sum",
        details={**card.details, "hyperparameters": {"terms": [*old, *new]}},
        references=list(dict.fromkeys([*card.references, *references])),
    )
    return sums.Model.of(parts).eval(), changed


def doubts(card: ModelCard, new: Sequence[Term]) -> list[str]:
    """What of the terms does not fit a model that was trained without them, as warnings.

    These are parameters of D3 of another functional than head or file say, and a repulsion within bonds.
    """
    found = []
    for term in new:
        said = _functionals(card.details) if term["family"] == "d3" else {}
        if said and term["functional"] not in said:
            functional, name = next(iter(said.items()))
            found.append(
                f"d3: '{name}' says {functional}, and the parameters are those of {term['functional']}; "
                f"expected --d3 {functional}-{term['damping']}"
            )
        if term["family"] == "zbl" and term["outer"] is not None:
            found += _within_bonds(term, card.elements)
    return found


def _functionals(details: Mapping[str, Any]) -> dict[str, str]:
    """Functionals that the head names, or else the file; each with that name."""
    source = _section(details, "source")
    for key, left_out in (("head", set()), ("file", AMBIGUOUS)):
        name = str(source.get(key) or "")
        found = [word for word in dispersion.functionals(name) if word not in left_out]
        if found:
            return dict.fromkeys(found, name)
    return {}


def _within_bonds(term: Term, elements: list[str]) -> list[str]:
    elements = [symbol for symbol in elements if symbol not in NOBLE]
    if not elements:
        return []
    i, j = torch.triu_indices(len(elements), len(elements))
    multiple = torch.tensor([symbol in NON_METALS for symbol in elements])
    bond = sum_of_radii(elements)[i, j] * torch.where(multiple[i] & multiple[j], SHORT, 1.0)
    energy = cast(repulsion.Model, made(term, elements)).repulsion.pair_energy(i, j, bond)
    k, n = int(energy.argmax()), int((energy > SLIGHT).sum())
    if n == 0:
        return []
    pair = f"{elements[int(i[k])]}–{elements[int(j[k])]}"
    return [
        f"zbl: the repulsion up to {term['outer']:g} Å reaches into bonds that the model has "
        f"learned without it ({energy[k]:.3g} eV for {pair} at {bond[k]:.2f} Å; {n} of {len(bond)} pairs): "
        "give smaller numbers or none, or train with it (`finetune --zbl`)"
    ]


def made(term: Term, elements: list[str]) -> Potential:
    """The model of one term, ready for use."""
    values = {key: value for key, value in term.items() if key != "family"}
    family = models.family(term["family"])
    model: Potential = family.Model(elements, hyperparameters(family.Hyperparameters, values, term["family"]))
    model.initialise(TrainingStatistics(average_neighbors=1.0, force_rms=1.0))
    return model


def require_possible(
    potential: Potential, card: ModelCard, new: Sequence[Term], name: str | None = None
) -> None:
    """Refuse terms that a model with this card has, or learned, already; `name` is that of the message.

    Raises:
        BadInput: it has; or it is a model of a whole molecule, which is evaluated without neighbour lists.
    """
    name = name or _named(card)
    if new and of_whole_molecule(potential):
        raise BadInput(
            f"{new[0]['family']}: {name} is one of a whole molecule, which stands alone; leave it out"
        )
    if potential.variants and any(term["family"] == "d3" for term in new):
        raise BadInput(f"d3: {name} has several energies, and D3 is the dispersion of one functional")
    for term in new:
        if term["family"] == "zbl" and repulsion.repels(potential):
            raise BadInput(
                f"zbl: {name} has a screened nuclear repulsion already, a second one would count "
                "it twice; leave zbl out"
            )
        if term["family"] == "d3" and any(isinstance(part, dispersion.Model) for part in potential.parts()):
            raise BadInput(
                f"d3: {name} holds dispersion already, a second one would count it twice; leave d3 out"
            )
    found = learned_dispersion(card.details)
    if found is not None and any(term["family"] == "d3" for term in new):
        raise BadInput(_twice(name, found))


def _twice(name: str, found: str) -> str:
    return (
        f"d3: {name} was trained with dispersion ('{found}'), which would count twice: "
        "leave d3 out (rename the file or head if its name is wrong)"
    )


def learned_dispersion(details: Mapping[str, Any]) -> str | None:
    """The name in a training record that says that the model learned dispersion, None without one.

    Names of the data do not count if `add` or `data.subtract` took dispersion off the labels.

    >>> learned_dispersion({"source": {"file": "MACE-OFF23_small.model"}})
    'MACE-OFF23_small.model'
    >>> learned_dispersion({"configuration": {"data": {"keys": {"energy": "pbe_d3_energy"}}}})
    'pbe_d3_energy'
    """
    configuration = _section(details, "configuration")
    data = _section(configuration, "data")
    names: list[Any] = [section.get(key) for section in _sources(details) for key in ("head", "file")]
    names.append(_section(details, "finetune").get("dispersion"))
    taken_off = (_section(configuration, "add"), _section(data, "subtract"))
    if all(section.get("d3") is None for section in taken_off):
        train = data.get("train")
        names += [*_section(data, "keys").values(), *(train if isinstance(train, list) else [train])]
    return next((n for n in names if isinstance(n, str) and _says_dispersion(Path(n).name)), None)


def _says_dispersion(name: str) -> bool:
    return WITH_DISPERSION.search(WITHOUT_DISPERSION.sub(" ", name)) is not None


def _sources(details: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [_section(details, "source"), _section(_section(details, "finetune"), "base")]


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _named(card: ModelCard) -> str:
    source = card.details.get("source")
    return str(source["file"]) if isinstance(source, dict) and "file" in source else "the model"
