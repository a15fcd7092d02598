"""Stored energies, forces and stress against what every engine computes: `mlplugins check --against`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlplugins import engines
from mlplugins.checks.suite import CheckOptions
from mlplugins.elements import require_known
from mlplugins.engines.base import Way
from mlplugins.errors import BadInput, MlpluginsError, nearest
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact
from mlplugins.quantities import QUANTITIES, Results
from mlplugins.structures import labelled, labels
from mlplugins.structures.dataset import Structure
from mlplugins.structures.explanation import explain
from mlplugins.structures.metrics import pairs

WHERE = "keys (--keys)"


@dataclass(frozen=True)
class Difference:
    """Differences of one quantity between an engine and the labels.

    Attributes:
        engine: of `engines.available()`.
        ranks: MPI ranks.
        detail: mode or transport of the engine.
        quantity: of the table of quantities.
        largest: absolute, in `unit`; NaN if nothing could be compared.
        rms: in `unit`.
        unit: of the differences.
        n_structures: how many were compared.
        where: file and frame of the largest one.
        tolerance: largest difference that passes; None: any.
        note: why something is missing.
    """

    engine: str
    ranks: int
    detail: str
    quantity: str
    largest: float
    rms: float
    unit: str
    n_structures: int
    where: str = ""
    tolerance: float | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether everything was compared and nothing is beyond the tolerance."""
        small = self.tolerance is None or self.largest <= self.tolerance
        return bool(math.isfinite(self.largest) and small and not self.note)

    def record(self) -> dict[str, Any]:
        """As the JSON file holds it."""
        return {name: getattr(self, name) for name in (*self.__dataclass_fields__, "passed")}


@dataclass(frozen=True)
class LabelComparison:
    """What was found.

    Attributes:
        model: the loaded file.
        rows: one for each quantity, engine, number of ranks and mode.
        explanations: what explains the differences (a zero of energy, a unit, a sign).
        notes: what is odd about the labels.
    """

    model: Artifact
    rows: tuple[Difference, ...]
    explanations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    def record(self) -> dict[str, Any]:
        """As the JSON file holds it."""
        return {
            "passed": self.passed,
            "against": [row.record() for row in self.rows],
            "explanations": list(self.explanations),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class CompareOptions:
    """How labels are read and compared.

    Attributes:
        engines: of `engines.available()`; None: all.
        ranks: MPI ranks, for engines that have them.
        keys: names of the labels in the files, e.g. `{"energy": "REF_energy"}`.
        tolerances: largest difference of each quantity (eV/atom, eV/Å, eV/Å³); others are only shown.
        variant: which of several energies the labels are of; None: that which `model` has been loaded with,
            or its default.
    """

    engines: tuple[str, ...] | None = None
    ranks: tuple[int, ...] = (1,)
    keys: Mapping[str, str] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)
    variant: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.tolerances.items():
            if name not in QUANTITIES:
                raise BadInput(f"tolerances (--tolerance): unknown '{name}': {nearest(name, QUANTITIES)}")
            if not value >= 0.0:
                raise BadInput(f"tolerances (--tolerance): {name}: expected a number from 0, got {value}")


def compare(
    model: str | Path | Artifact,
    data: Any,
    options: CompareOptions = CompareOptions(),
    device: str = "cpu",
    report: Callable[[str, int, int], None] = lambda text, step, total: None,
) -> LabelComparison:
    """Differences between stored labels, of whatever package, and a model in every engine.

    Args:
        model: model file (any metatomic model), or one that is loaded.
        data: files that ASE reads (`file@:100` takes the first 100 frames), or frames (`ase.Atoms`).
        options: engines, names of labels, tolerances.
        device: on which a file is loaded.
        report: called with what is compared next, and which step of how many that is.

    Raises:
        BadInput: no such file, engine or label, an element that the model does not know.

    >>> import tempfile
    >>> from ase import Atoms
    >>> from ase.calculators.singlepoint import SinglePointCalculator
    >>> from mlplugins.model_file.card import ModelCard
    >>> from mlplugins.model_file.write import save
    >>> from mlplugins.models import lennard_jones
    >>> potential = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=1.0, sigma=1.0))
    >>> file = tempfile.mkdtemp() + "/model.pt"
    >>> save(potential, file, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
    >>> dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 2 ** (1 / 6)]])
    >>> dimer.calc = SinglePointCalculator(dimer, energy=-1.002)
    >>> [row] = compare(file, [dimer], CompareOptions(("ase",), tolerances={"energy": 0.002})).rows
    >>> row.quantity, round(row.largest, 9), row.unit, row.passed
    ('energy', 0.001, 'eV/atom', True)
    """
    chosen = CheckOptions(options.engines, options.ranks).chosen
    keys = labelled.keys_of(options.keys, WHERE)
    structures = [s for part in labelled.read(data, keys, WHERE).values() for s in part]
    for name in options.tolerances:
        if all(s.get(name) is None for s in structures):
            raise BadInput(f"tolerances (--tolerance): no frame has a label of '{name}'")
    loaded = _loaded(model, device, options.variant)
    for s in structures:
        known = f"; it knows {', '.join(loaded.elements)}"
        require_known(s.numbers, loaded.elements, f"{s.origin}: the model does not know ", known)
        loaded.state(s.states, s.origin)
    ranks = (1,) if loaded.molecular else options.ranks
    atoms = [s.to_atoms().copy() for s in structures]  # without the labels
    tasks = [(name, way) for name in chosen for way in engines.load(name).ways(loaded, atoms, ranks)]
    tasks = [(name, way) for name, way in tasks if len(way.structures) == len(atoms)]
    rows: list[Difference] = []
    said: dict[str, None] = {}
    for step, (name, way) in enumerate(tasks):
        engine = engines.load(name)
        report(f"{engine.TITLE} {way.detail}".strip(), step, len(tasks))
        outcomes = engine.single_points(loaded, atoms, way)
        rows += _rows((name, way), structures, outcomes, options.tolerances)
        done = [(s, found) for s, found in zip(structures, outcomes) if isinstance(found, Results)]
        said |= dict.fromkeys(explain([s for s, _ in done], [found for _, found in done]))
    notes = labels.notes(structures, keys) + labels.unseen_states(structures, loaded.inputs)
    return LabelComparison(loaded, tuple(rows), tuple(said), tuple(notes))


def _loaded(model: str | Path | Artifact, device: str, variant: str | None) -> Artifact:
    """The file, with the energy that is meant."""
    if not isinstance(model, Artifact):
        return artifact.load(model, device, variant)
    return model if variant is None else artifact.load(model.path, model.device, variant)


def _rows(
    how: tuple[str, Way],
    structures: Sequence[Structure],
    outcomes: Sequence[Results | MlpluginsError],
    tolerances: Mapping[str, float],
) -> list[Difference]:
    """One for each quantity that was compared, or should have been."""
    name, way = how
    together = list(zip(structures, outcomes, strict=True))
    failures = [f"{s.origin}: {found}" for s, found in together if isinstance(found, MlpluginsError)]
    done = [(s, pairs([s], [found])) for s, found in together if isinstance(found, Results)]
    why = f"{len(failures)} of {len(together)} frames failed, the first: {failures[0]}" if failures else ""
    empty = Difference(name, way.ranks, way.detail, "", np.nan, np.nan, "", 0, note=why)
    rows = []
    for quantity in QUANTITIES.values():
        limit = tolerances.get(quantity.name)
        row = replace(empty, quantity=quantity.name, unit=quantity.compared_unit, tolerance=limit)
        found = [(s, *values[quantity.name]) for s, values in done if quantity.name in values]
        if found:
            off = [np.abs(label - value) for _, label, value in found]
            worst, every = int(np.argmax([each.max() for each in off])), np.concatenate(off)
            rows.append(
                replace(
                    row,
                    largest=float(every.max()),
                    rms=float(np.sqrt(np.mean(every**2))),
                    n_structures=len(found),
                    where=found[worst][0].origin,
                )
            )
        elif limit is not None or (not done and quantity.required):
            rows.append(replace(row, note=why or "no frame has both a label and a prediction"))
    return rows
