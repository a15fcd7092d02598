"""From a configuration to validated training, validation and test sets, and to the tensors a model sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from mlplugins import heads
from mlplugins.elements import require_known
from mlplugins.errors import BadInput, nearest
from mlplugins.heads import LabelSizes
from mlplugins.models import composition
from mlplugins.models.base import TrainingStatistics
from mlplugins.models.composition import Composition
from mlplugins.quantities import QUANTITIES, Quantity
from mlplugins.structures import batch, consistency, dataset, dipoles, kinetic, labels, magnitudes, validation
from mlplugins.structures.batch import Batch
from mlplugins.structures.dataset import Keys, Structure
from mlplugins.training import energies, subtraction
from mlplugins.training.config import Configuration, RunConfiguration
from mlplugins.training.sections import ByHead, DataSection, Sources

Labeller = Callable[[list[Structure]], list[Structure]]
"""Gives structures other labels."""


NO_ENERGY = (
    "no training frame has an energy: that of this model, and its forces, are zero or those of its base; it "
    "is for what its heads predict"
)
SAME_ATOM_EV = 1e-3
"""Energies of isolated atoms of one element that count as the same."""


@dataclass(frozen=True)
class DataSets:
    """Validated structures of a run.

    Attributes:
        train, validation, test: structures; the latter two may be empty.
        baseline: composition energies, in the order of the species index.
        sha256: hash of each set.
        warnings: what the user should know.
    """

    train: list[Structure]
    validation: list[Structure]
    test: list[Structure]
    baseline: Composition
    sha256: dict[str, str]
    warnings: list[str] = field(default_factory=list)

    @property
    def elements(self) -> list[str]:
        return self.baseline.elements


class Split(NamedTuple):
    """Checked structures of the three sets, the elements of the training frames, and what the user should
    know."""

    train: list[Structure]
    validation: list[Structure]
    test: list[Structure]
    elements: list[str]
    warnings: list[str]


def load(configuration: Configuration) -> DataSets:
    """Read, check and split the data; nothing is computed from data that fail a check.

    Raises:
        BadInput: see `mlplugins.structures.validation`; an element outside `data.elements`.
    """
    parts = split(configuration)
    energies.require_trained(configuration, parts.train)
    baseline = _baselines(configuration, parts)
    warnings = parts.warnings + ([baseline.note] if baseline.note else [])
    return data_sets(parts, baseline, warnings)


def _baselines(configuration: RunConfiguration, parts: Split) -> Composition:
    """The baseline of every energy, of its own frames."""
    frames = energies.by_head([*parts.train, *parts.validation])
    names = list(configuration.energies) or [""]
    found: dict[str, Composition] = {}
    for k, name in enumerate(names):
        head = name if k else ""
        if k and configuration.coupled:  # elements of one matrix have one zero
            found[head] = found[""]
            continue
        given = given_baseline(configuration.data, frames.get(head, []), name)
        found[head] = _baseline(given, [s for s in parts.train if s.head == head], parts.elements)
    return Composition.joined(found)


def data_sets(parts: Split, baseline: Composition, warnings: list[str]) -> DataSets:
    """The sets with a baseline; energies far from it are warned about."""
    known = _with_energy(parts.train)
    warnings = warnings + validation.outliers(_residuals(known, baseline), known)
    if not known:
        warnings = [*warnings, NO_ENERGY]
    sets = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    hashes = {name: validation.data_hash(structures) for name, structures in sets.items() if structures}
    return DataSets(parts.train, parts.validation, parts.test, baseline, hashes, warnings)


def split(configuration: RunConfiguration, label: Labeller | None = None) -> Split:
    """Read, check and split the data (see `load`); `label` replaces the labels of the frames."""
    data = configuration.data
    keys = configuration.keys
    if data.prior is not None and label is None:
        label = _without_prior(configuration)
    terms = configuration.subtracted
    train = subtraction.without(terms, _read(data.train, configuration, label))
    _require_energies(configuration, train)
    if label is None or data.prior is not None:
        labels.require_named(train, keys)
    held_out = None
    if not isinstance(data.validation, float):
        held_out = subtraction.without(terms, _read(data.validation, configuration, label))
    test = []
    if data.test is not None:
        test = subtraction.without(terms, _read(data.test, configuration, label))
    frames = [*train, *(held_out or []), *test]
    if not data.mixed_pbc:
        validation.check_periodicity(frames)
    labels.check_flags(frames)
    if data.weights:
        train = _weighted(train, data.weights)
        held_out = held_out and [
            replace(s, weight=data.weights.get(s.config_type or "", 1.0)) for s in held_out
        ]
    elements = _elements(data, train)
    for structures in (train, held_out or [], test):
        _check_elements(structures, elements)
    train, warnings = validation.unique(train)
    warnings += _isolated(train, data)
    fraction = data.validation if isinstance(data.validation, float) else 0.0
    if held_out is None:
        train, held_out = _divide(train, fraction, configuration.seed)
    warnings += energies.notes([*train, *held_out], frames, configuration)
    warnings += validation.check_disjoint(train, held_out, "validation")
    warnings += validation.check_disjoint([*train, *held_out], test, "test")
    if label is None or data.prior is not None:
        warnings += _of_labels(configuration, frames, train)
    if label is None:
        warnings += [*magnitudes.check(train), *dipoles.check(train, keys), *labels.indefinite(train)]
    return Split(train, held_out, test, elements, warnings)


def _of_labels(
    configuration: RunConfiguration, frames: Sequence[Structure], train: Sequence[Structure]
) -> list[str]:
    """What is odd about the labels of the files."""
    keys, prior = configuration.keys, configuration.data.prior
    others = energies.names_of_labels(configuration) + [*(prior.model_dump().values() if prior else ())]
    found = labels.notes(frames, keys, others)
    for part in energies.by_head(train).values():
        found += [*consistency.check(part, keys), *kinetic.check(part, keys)]
    if prior is not None and any({keys.stress, keys.virial} & set(s.available) for s in train):
        found.append("the stress is not learned from: data.prior has none to subtract")
    return found


def _require_energies(configuration: RunConfiguration, train: Sequence[Structure]) -> None:
    """Refuse frames without any energy, unless heads alone are to be learned."""
    key = configuration.keys.energy
    if key is None and not configuration.heads:
        raise BadInput("data.keys: {energy: null} leaves nothing to learn: name the energy, or add `heads`")
    if key is not None and all(s.energy is None for s in train):
        raise validation.absent(train[0], "energy", key, "data.keys")


def graphs(
    structures: Sequence[Structure], baseline: Composition, cutoff: float, dtype: torch.dtype
) -> list[Batch]:
    """One batch of one structure each, neighbour lists computed."""
    places = {head: k for k, head in enumerate(baseline.heads)}
    found = []
    for s in structures:
        offset, head = baseline.predict(symbols(s), s.head), places[s.head]
        one = batch.single(s, baseline.elements, cutoff, offset, dtype, head)
        if s.get("gap") is not None:
            one.labels["gap"] -= baseline.gap(symbols(s), s.head)
        found.append(one)
    return found


def statistics(graphs: Sequence[Batch], n_species: int, variants: Sequence[str] = ()) -> TrainingStatistics:
    """Mean neighbour number of the training set, and sizes of its forces and labels; `variants` are further
    energies, each with the size of its own forces."""
    atoms = sum(g.species.shape[0] for g in graphs)
    edges = sum(g.centers.shape[0] for g in graphs)
    of_heads = [[g for g in graphs if int(g.head[0]) == k] for k in range(1 + len(variants))]
    found = {name: label_sizes(graphs, QUANTITIES[name], n_species) for name in heads.predictable()}
    sizes = {name: each for name, each in found.items() if each}
    sizes |= {
        name: LabelSizes((force_rms(own),), (_mean_energy(own),)) for name, own in zip(variants, of_heads[1:])
    }
    return TrainingStatistics(edges / atoms, force_rms(of_heads[0]), sizes)


def _mean_energy(graphs: Sequence[Batch]) -> float:
    """Mean label of the energy per atom, without the composition energies, eV; zero without any."""
    known = torch.cat([g.labels["energy"].double() / g.n_atoms.double() for g in graphs] or [torch.zeros(1)])
    known = known[~known.isnan()]
    return float(known.mean()) if known.numel() > 0 else 0.0


def force_rms(graphs: Sequence[Batch]) -> float:
    """Root mean square of the force components; without forces, the spread of the energy per atom, and zero
    without energies, whose energy is then zero as well."""
    atoms = sum(g.species.shape[0] for g in graphs)
    squares = sum(float(g.labels["forces"].double().square().nansum()) for g in graphs)
    rms = float(np.sqrt(squares / (3 * max(atoms, 1))))
    if rms == 0.0:
        energies = [float(g.labels["energy"].sum()) / float(g.n_atoms.sum()) for g in graphs]
        known = [energy for energy in energies if np.isfinite(energy)]
        rms = (float(np.std(known)) or 1.0) if known else 0.0
    return rms


def label_sizes(graphs: Sequence[Batch], quantity: Quantity, n_species: int) -> LabelSizes | None:
    """Sizes of the labels of a quantity; None without labels."""
    rows, counts = [], []
    for g in graphs:
        values = g.labels[quantity.learns or quantity.name].double().flatten(1 if quantity.shape else 0)
        values = values.reshape(-1, max(1, int(np.prod(quantity.shape))))
        species = torch.nn.functional.one_hot(g.species, n_species).double()
        if quantity.per == "system":
            species = species.sum(dim=0, keepdim=True)
        if quantity.extensive:
            values, species = values / g.n_atoms.double(), species / g.n_atoms.double()
        known = ~values.isnan().any(dim=1)
        rows.append(values[known])
        counts.append(species[known])
    x, n = torch.cat(rows).numpy(), torch.cat(counts).numpy()
    if not x.any():
        return None
    parts = [x @ part.projector for part in quantity.parts] or [x]
    constants: tuple[float, ...] = ()
    by_element: tuple[tuple[float, ...], ...] = ()
    if "0e" in quantity.irreps and quantity.head == "tensor":
        best = np.linalg.lstsq(n, parts[0][:, 0], rcond=1e-9)[0]
        constants = tuple(best.tolist())
        parts[0] = parts[0] - np.outer(
            n @ best, quantity.parts[0].projector[0] * 3 if quantity.parts else 1.0
        )
    rms = tuple(float(np.sqrt(np.mean(p**2))) for p in parts)
    if quantity.per == "atom" and quantity.head == "tensor":
        by_element = tuple(_of_elements(p, n, size) for p, size in zip(parts, rms))
    return LabelSizes(rms, constants, by_element)


def _of_elements(values: np.ndarray, species: np.ndarray, whole: float) -> tuple[float, ...]:
    """Root mean square of the rows of each element, of which 1 % of the whole is the least; the whole without
    any."""
    groups = [values[column > 0] for column in species.T]
    return tuple(max(float(np.sqrt(np.mean(g**2))), 0.01 * whole) if len(g) else whole for g in groups)


def _read(
    source: Sources | ByHead, configuration: RunConfiguration, label: Labeller | None = None
) -> list[Structure]:
    structures = energies.read(source, configuration)
    structures = structures if label is None else label(structures)
    if configuration.needs_forces:
        structures = [_at_rest(s) for s in structures]
    validation.check(structures, configuration.keys, configuration.needs_forces)
    return structures


def _at_rest(s: Structure) -> Structure:
    """An isolated atom without forces has none by symmetry; files of such atoms often hold energies alone."""
    return replace(s, forces=np.zeros((1, 3))) if s.is_isolated_atom and s.forces is None else s


def _without_prior(configuration: RunConfiguration) -> Labeller:
    """Subtracts the labels of the cheaper method, read from the same files."""
    data, need_forces = configuration.data, configuration.needs_forces
    if configuration.energies:
        raise BadInput("data.prior: differences to a cheaper method are of one energy: leave out `energies`")
    if data.prior is None:
        return lambda structures: structures
    named = frozenset(("energy", "forces", "stress"))
    keys = Keys(energy=data.prior.energy, forces=data.prior.forces, stress=None, named=named)
    sources = [s for s in (data.train, data.validation, data.test) if isinstance(s, str | list)]
    cheap = {s.origin: s for source in sources for s in dataset.read(source, keys)}

    def label(structures: list[Structure]) -> list[Structure]:
        validation.check([cheap[s.origin] for s in structures], keys, need_forces, "data.prior")
        return [_difference(s, cheap[s.origin]) for s in structures]

    return label


def _difference(s: Structure, cheap: Structure) -> Structure:
    energy = None if s.energy is None else s.energy - (cheap.energy or 0.0)
    forces = None if s.forces is None or cheap.forces is None else s.forces - cheap.forces
    return s.labelled({"energy": energy, "forces": forces})


def _elements(data: DataSection, train: Sequence[Structure]) -> list[str]:
    if data.elements is None:
        numbers = sorted({int(z) for s in train for z in s.numbers})
        return [chemical_symbols[z] for z in numbers]
    unknown = [symbol for symbol in data.elements if symbol not in atomic_numbers]
    if unknown:
        raise BadInput(f"data.elements: '{unknown[0]}' is not an element; {nearest(unknown[0], ['H', 'Li'])}")
    present = {s for structure in train for s in symbols(structure)}
    absent = [symbol for symbol in data.elements if symbol not in present]
    if absent and data.baseline == "fit":
        raise BadInput(
            f"data.elements: no training frame holds {', '.join(absent)}; leave it out, or give data.baseline"
        )
    return list(dict.fromkeys(data.elements))


def _check_elements(structures: Sequence[Structure], elements: Sequence[str]) -> None:
    for structure in structures:
        require_known(
            structure.numbers,
            elements,
            f"{structure.origin}: element(s) ",
            f" not among the model's {', '.join(elements)}: add training frames that hold them, or remove "
            "the frame",
        )


def _divide(
    structures: list[Structure], fraction: float, seed: int
) -> tuple[list[Structure], list[Structure]]:
    """Random split, the same for the same seed; frames keep their order within the parts, and those with
    labels of several energies stay in one of them."""
    if fraction == 0.0:
        return structures, []
    if len(structures) < 2:
        raise BadInput(
            f"{structures[0].origin}: one training frame cannot be split: set data.validation to 0 or a file"
        )
    origins = {origin: k for k, origin in enumerate(dict.fromkeys(s.origin for s in structures))}
    n = min(max(1, round(fraction * len(origins))), len(origins) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(origins))[:n].tolist())
    parts: tuple[list[Structure], list[Structure]] = ([], [])
    for structure in structures:
        parts[origins[structure.origin] in chosen].append(structure)
    return parts


def given_baseline(
    data: DataSection, structures: Sequence[Structure], name: str = ""
) -> dict[str, float] | None:
    """Energies of the elements that the configuration gives, or the isolated atoms among the frames; None if
    they are to be fitted.

    Args:
        data: the section.
        structures: the frames.
        name: of several energies the one that they are of.

    Raises:
        BadInput: two energies of one isolated atom, or no isolated atom at all; not one mapping for each
            energy.
    """
    if isinstance(data.baseline, dict):
        return _own(data.baseline, name)
    if data.baseline == "fit":
        return None
    atoms: dict[str, Structure] = {}
    for s in structures:
        if not s.is_isolated_atom or s.energy is None:
            continue
        other = atoms.setdefault(symbols(s)[0], s)
        if abs((other.energy or 0.0) - s.energy) > SAME_ATOM_EV:
            raise BadInput(
                f"data.baseline: isolated: {other.origin} and {s.origin} are {symbols(s)[0]} atoms with "
                f"{other.energy} and {s.energy} eV: remove one"
            )
    present = sorted({symbol for s in structures for symbol in symbols(s)} - set(atoms))
    if present:
        raise BadInput(
            f"data.baseline: isolated: no training frame is an isolated {' or '.join(present)} atom (one "
            "atom, config_type=IsolatedAtom or not periodic): add one, give energies, or leave baseline out"
        )
    return {symbol: float(s.energy or 0.0) for symbol, s in atoms.items()}


def _own(baseline: Mapping[str, Any], name: str) -> dict[str, float]:
    """What the configuration gives for one of several energies."""
    nested = any(isinstance(value, dict) for value in baseline.values())
    if not name and not nested:
        return dict(baseline)
    if not name or not nested or name not in baseline:
        raise BadInput(
            f"data.baseline: expected the energies of the elements of {name or 'the only energy'}"
            + (f" as one mapping for each energy, {{{name}: {{Li: …}}}}" if name else ", {Li: …}")
            + f", got {', '.join(baseline)}"
        )
    return dict(baseline[name])


def _isolated(train: Sequence[Structure], data: DataSection) -> list[str]:
    """What isolated atoms among the frames are good for, if nobody asked."""
    n = sum(s.is_isolated_atom for s in train)
    if n == 0 or data.baseline != "fit":
        return []
    return [
        f"{n} training frame(s) are isolated atoms: data.baseline: isolated takes their energies as the "
        "baseline of their elements"
    ]


def _weighted(structures: list[Structure], weights: Mapping[str, float]) -> list[Structure]:
    """The structures with the weight of their config_type.

    Raises:
        BadInput: a config_type that no frame has.
    """
    kinds = {s.config_type for s in structures if s.config_type is not None}
    unknown = [name for name in weights if name not in kinds]
    if unknown:
        held = f": {nearest(unknown[0], kinds)}" if kinds else ", none has one at all"
        raise BadInput(f"data.weights: no training frame has config_type '{unknown[0]}'{held}")
    return [replace(s, weight=weights.get(s.config_type or "", 1.0)) for s in structures]


def _baseline(given: dict[str, float] | None, train: Sequence[Structure], elements: list[str]) -> Composition:
    if given is not None:
        absent = [symbol for symbol in elements if symbol not in given]
        if absent:
            raise BadInput(
                f"data.baseline: no energy for {', '.join(absent)}; give eV per atom of each element"
            )
        return Composition(elements, [given[symbol] for symbol in elements], len(elements))
    train = _with_energy(train)
    if not train:
        return Composition(elements, [0.0] * len(elements), len(elements))
    present = [z for z in elements if any(z in symbols(s) for s in train)]
    counts = [[Counter(symbols(s))[z] for z in present] for s in train]
    fitted = composition.fit(counts, [s.energy or 0.0 for s in train], present)
    if present == elements:
        return fitted
    # a random split may leave a rare element without a training frame: it gets the mean
    mean = float(np.mean([(s.energy or 0.0) / len(s) for s in train]))
    known = dict(zip(present, fitted.energies))
    return Composition(elements, [known.get(symbol, mean) for symbol in elements], fitted.rank)


def _with_energy(structures: Sequence[Structure]) -> list[Structure]:
    return [s for s in structures if s.energy is not None]


def _residuals(structures: Sequence[Structure], baseline: Composition) -> list[float]:
    return [(s.energy or 0.0) - baseline.predict(symbols(s), s.head) for s in structures]


def symbols(structure: Structure) -> list[str]:
    """Element symbol of every atom."""
    return [chemical_symbols[z] for z in structure.numbers]
